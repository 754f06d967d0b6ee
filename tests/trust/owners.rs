//! What another user than root, the daemon's and the directory's owner could have written is not served.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::live;
use crate::support::mount::{Mount, done, kidafs, text};
use crate::support::situation::is_root;

const ALICE: u32 = 4001;

fn file(path: &Path, mode: u32, owner: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "content").unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    chown(path, Some(owner), Some(owner)).unwrap();
}

fn setfacl(path: &Path, list: &str) {
    done(Command::new("setfacl").args(["-m", list]).arg(path));
}

#[test]
fn what_a_stranger_could_have_written_is_not_served_counted_and_named() {
    if !is_root() {
        return; // Only root can make another user's files.
    }
    let mut mount = Mount::prepared(&["--allow-other"], |dir| {
        fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
        file(&dir.join("good"), 0o644, 0);
        file(&dir.join("hers"), 0o644, ALICE);
        file(&dir.join("everybodys"), 0o646, 0);
        file(&dir.join("groups"), 0o664, 0);
        chown(dir.join("groups"), None, Some(ALICE)).unwrap();
        file(&dir.join("listed"), 0o644, 0);
        setfacl(&dir.join("listed"), "u:4001:rw");
        file(&dir.join("read-listed"), 0o600, 0);
        setfacl(&dir.join("read-listed"), "u:4001:r");
        symlink("good", dir.join("link")).unwrap();
        rustix::fs::chownat(
            rustix::fs::CWD,
            dir.join("link"),
            Some(rustix::fs::Uid::from_raw(ALICE)),
            None,
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        )
        .unwrap();
        file(&dir.join("her-folder/file"), 0o644, 0);
        chown(dir.join("her-folder"), Some(ALICE), None).unwrap();
        file(&dir.join("open/file"), 0o644, 0);
        file(&dir.join("open/sub/file"), 0o644, 0);
        fs::set_permissions(dir.join("open"), PermissionsExt::from_mode(0o777)).unwrap();
        file(&dir.join("listed-open/file"), 0o644, 0);
        setfacl(&dir.join("listed-open"), "u:4001:rwx");
        // Nobody else gets in here.
        file(&dir.join("closed/within/file"), 0o666, 0);
        fs::set_permissions(dir.join("closed/within"), PermissionsExt::from_mode(0o777)).unwrap();
        fs::set_permissions(dir.join("closed"), PermissionsExt::from_mode(0o700)).unwrap();
    });
    for good in ["good", "read-listed", "closed/within/file"] {
        assert_eq!(fs::read(mount.path(good)).unwrap(), b"content", "{good}");
    }
    let strangers = [
        "hers",
        "everybodys",
        "groups",
        "listed",
        "link",
        "her-folder",
        "open/file",
        "open/sub",
        "listed-open/file",
    ];
    for stranger in strangers {
        assert!(
            fs::symlink_metadata(mount.path(stranger)).is_err(),
            "{stranger}"
        );
    }
    assert_eq!(mount.stats().unserved, strangers.len() as u64);
    // A list that lets one user read is not the group's right to.
    let mode = fs::metadata(mount.path("read-listed")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // Named by the start, so many of them.
    mount.umount();
    let said = Command::new(kidafs().get_program())
        .env("KIDAFS_CONFIG", "/dev/null")
        .args(["mount", "--allow-other"])
        .arg(mount.dir())
        .output();
    let said = text(&said.unwrap());
    assert_eq!(said.matches("is not served: ").count(), 8, "{said}");
    assert!(said.contains("1 more"), "{said}");
    // The names can be had by who commits.
    mount.commit("hers", "new");
    assert_eq!(fs::read(mount.path("hers")).unwrap(), b"new");
    mount.commit("open/file", "new");
    assert_eq!(fs::read(mount.path("open/file")).unwrap(), b"new");
    done(kidafs().arg("umount").arg(mount.dir()));
}

#[test]
fn a_stranger_who_takes_a_files_place_while_it_is_served_is_found_out() {
    if !is_root() {
        return; // As above.
    }
    let mount = Mount::prepared(&["--memory", "0"], |dir| file(&dir.join("entry"), 0o644, 0));
    assert_eq!(fs::read(mount.path("entry")).unwrap(), b"content");
    let beneath = mount.backing().join("entry");
    fs::remove_file(&beneath).unwrap();
    file(&beneath, 0o644, ALICE);
    // Past the kernel's copy.
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECT;
    if let Ok(open) = rustix::fs::open(mount.path("entry"), flags, rustix::fs::Mode::empty()) {
        let mut bytes = [0; 4096];
        assert!(rustix::io::pread(&open, &mut bytes, 0).is_err());
    }
    assert_eq!(mount.stats().unserved, 1);
}

#[test]
fn a_directory_that_others_can_write_by_group_or_list_is_refused_with_its_cure() {
    if !is_root() {
        return; // As above.
    }
    let folder = live::folder();
    let dir = folder.path().join("cache");
    fs::create_dir(&dir).unwrap();
    let refusal = || {
        let output = kidafs().arg("mount").arg(&dir).output().unwrap();
        assert!(!output.status.success());
        text(&output)
    };
    chown(&dir, None, Some(ALICE)).unwrap();
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o775)).unwrap();
    assert!(refusal().contains("chmod g-w"), "{}", refusal());
    Mount::over(&dir, None, &["--trust-group"]).umount();
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
    setfacl(&dir, "u:4001:rwx");
    assert!(refusal().contains("setfacl -b"), "{}", refusal());
    done(Command::new("setfacl").arg("-b").arg(&dir));
    Mount::over(&dir, None, &[]).umount();
}

#[test]
fn what_is_made_under_a_default_list_gives_nobody_more_than_the_list() {
    if !is_root() {
        return; // As above.
    }
    let mount = Mount::prepared(&["--allow-other"], |dir| {
        done(
            Command::new("setfacl")
                .args(["-d", "-m", "u:4001:r,g::-,o::-"])
                .arg(dir),
        );
    });
    mount.commit("entry", "content");
    fs::create_dir(mount.path("dir")).unwrap();
    mount.commit("dir/entry", "content");
    for name in ["entry", "dir/entry"] {
        let mode = fs::metadata(mount.path(name)).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
}

#[test]
fn root_follows_no_path_of_which_somebody_else_could_exchange_a_part() {
    if !is_root() {
        return; // Whoever is not root can be led only where he may go anyway.
    }
    let folder = live::folder();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let at = |name: &str| folder.path().join(name);
    let refused = |dir: &Path| {
        let output = kidafs()
            .arg("mount")
            .arg("--allow-other")
            .arg(dir)
            .output()
            .unwrap();
        let said = text(&output);
        assert!(
            !output.status.success() && said.contains("exchange"),
            "{}: {said}",
            dir.display()
        );
    };
    // A link of hers; a folder of hers; one that everybody may write, with and without the sticky bit.
    fs::create_dir_all(at("target/cache")).unwrap();
    fs::create_dir_all(at("hers/cache")).unwrap();
    chown(at("hers"), Some(ALICE), None).unwrap();
    symlink(at("target"), at("hers/link")).unwrap();
    refused(&at("hers/cache"));
    refused(&at("hers/link"));
    refused(&at("hers/link/cache"));
    fs::create_dir_all(at("open/cache")).unwrap();
    fs::set_permissions(at("open"), PermissionsExt::from_mode(0o777)).unwrap();
    refused(&at("open/cache"));
    refused(&at("open/missing"));
    symlink(at("open/cache"), at("link")).unwrap();
    refused(&at("link"));
    fs::set_permissions(at("open"), PermissionsExt::from_mode(0o1777)).unwrap();
    Mount::over(&at("open/cache"), None, &[]).umount();
    // The directory's owner may own the way to it.
    chown(at("hers/cache"), Some(ALICE), None).unwrap();
    Mount::over(&at("hers/cache"), None, &["--allow-other"]).umount();
}
