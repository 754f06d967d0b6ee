use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

const NAME: &str = "__kida_py314_page.html_0123456789abcdef.pyc";

fn entry(path: &str, engine: &str) -> PackEntry {
    PackEntry {
        path: path.to_owned(),
        size: 0,
        sha256: String::new(),
        mtime: 1_000_000_000_123_456_789,
        engine: engine.to_owned(),
        version: String::new(),
        key: String::new(),
    }
}

fn local(folder: &tempfile::TempDir) -> Local {
    Local::create(folder.path(), Engines::default()).unwrap()
}

#[test]
fn what_is_here_already_stays() {
    let folder = tempfile::tempdir().unwrap();
    let local = local(&folder);
    let new = entry(NAME, "kida");
    assert_eq!(local.commit(&new, b"one").unwrap(), Committed::Yes);
    assert_eq!(local.commit(&new, b"two").unwrap(), Committed::Kept);
    assert_eq!(fs::read(folder.path().join(NAME)).unwrap(), b"one");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_entry_is_readable_for_whom_the_directory_is() {
    for (directory, file) in [
        (0o700, 0o600),
        (0o755, 0o644),
        (0o750, 0o640),
        (0o777, 0o644),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(directory)).unwrap();
        local(&folder).commit(&entry(NAME, "kida"), b"one").unwrap();
        let mode = fs::metadata(folder.path().join(NAME)).unwrap().mode();
        assert_eq!(mode & 0o777, file, "{directory:o}");
    }
}

#[test]
fn only_a_module_of_makos_keeps_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let local = local(&folder);
    local
        .commit(&entry("a/b/page.html.py", "mako"), b"x")
        .unwrap();
    local.commit(&entry(NAME, "kida"), b"x").unwrap();
    let module = fs::metadata(folder.path().join("a/b/page.html.py")).unwrap();
    assert_eq!(
        (module.mtime(), module.mtime_nsec()),
        (1_000_000_000, 123_456_789)
    );
    let other = fs::metadata(folder.path().join(NAME)).unwrap();
    assert!(other.mtime() > 1_700_000_000);
}

#[test]
fn no_link_is_followed_out_of_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), folder.path().join("sub")).unwrap();
    let local = local(&folder);
    let path = format!("sub/{NAME}");
    assert!(local.commit(&entry(&path, "kida"), b"one").is_err());
    fs::write(elsewhere.path().join(NAME), b"x").unwrap();
    assert!(local.read(&path, 0).unwrap().is_none());
    symlink(elsewhere.path().join(NAME), folder.path().join(NAME)).unwrap();
    assert!(local.read(NAME, 0).unwrap().is_none());
    assert_eq!(
        local.commit(&entry(NAME, "kida"), b"x").unwrap(),
        Committed::Kept
    );
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    assert!(local.names().unwrap().paths.is_empty());
}

#[test]
fn only_entries_are_listed_and_only_whole_ones_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let legacy = b"\xe3\0\0\0\0";
    for (name, content) in [
        (NAME, &legacy[..]),
        (
            "__kida_py313_page.html_0123456789abcdef.pyc",
            b"\0KDA\xff\xff\xff\xff",
        ),
        ("photo.jpg", b"x"),
        (&format!("{NAME}.abcdefgh.tmp"), legacy),
    ] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    fs::create_dir(folder.path().join(PRIVATE_DIR)).unwrap();
    fs::write(folder.path().join(PRIVATE_DIR).join(NAME), legacy).unwrap();
    let local = local(&folder);
    let names = local.names().unwrap();
    assert_eq!(names.paths.len(), 2);
    assert_eq!(
        names.versions.iter().collect::<Vec<_>>(),
        ["py313", "py314"]
    );
    let found = local.read(NAME, 0).unwrap().unwrap();
    assert_eq!(found.content, legacy);
    assert_eq!(found.entry.key, "0123456789abcdef");
    assert_eq!(found.entry.version, "py314");
    let torn = "__kida_py313_page.html_0123456789abcdef.pyc";
    assert!(local.read(torn, 0).unwrap().is_none());
    assert!(local.read("gone.pyc", 0).unwrap().is_none());
}
