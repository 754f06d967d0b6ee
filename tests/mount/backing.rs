//! The backing directory is a plain cache directory, under a real mount of the real binary.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use crate::support::daemon::is_mount_root;
use crate::support::entries;
use crate::support::mount::{Mount, wait_for};

fn names(dir: &Path) -> BTreeSet<OsString> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect()
}

#[test]
fn default() {
    let mut mount = Mount::prepared(&[], |dir| fs::write(dir.join("before"), "old").unwrap());
    assert!(is_mount_root(mount.dir()));
    assert_eq!(fs::read(mount.path("before")).unwrap(), b"old");
    mount.commit("entry", "new");
    assert_eq!(fs::read(mount.backing().join("entry")).unwrap(), b"new");
    assert_eq!(mount.stats().commits, 1);
    mount.umount();
    assert!(!is_mount_root(mount.dir()));
    assert_eq!(fs::read(mount.path("entry")).unwrap(), b"new");
}

#[test]
fn option() {
    let mut mount = Mount::backed(&[]);
    mount.commit("entry", "content");
    assert_eq!(fs::read(mount.backing().join("entry")).unwrap(), b"content");
    let stats = mount.stats();
    assert_eq!(stats.backing, mount.backing().to_str().unwrap());
    assert_eq!(stats.mount_point, mount.dir().to_str().unwrap());
    mount.umount();
    assert_eq!(names(mount.dir()).len(), 0, "the mount point is as it was");
    assert_eq!(fs::read(mount.backing().join("entry")).unwrap(), b"content");
}

#[test]
fn existing() {
    let mount = Mount::backed_by(&[], |backing| {
        fs::create_dir_all(backing.join("sub/deep")).unwrap();
        fs::write(backing.join("sub/deep/entry"), "content").unwrap();
        fs::write(backing.join("empty"), "").unwrap();
        fs::set_permissions(backing.join("empty"), PermissionsExt::from_mode(0o600)).unwrap();
        symlink("sub/deep/entry", backing.join("link")).unwrap();
    });
    assert_eq!(
        names(mount.dir()),
        ["sub", "empty", "link"].map(OsString::from).into()
    );
    assert_eq!(fs::read(mount.path("link")).unwrap(), b"content");
    for name in ["sub", "sub/deep", "sub/deep/entry", "empty", "link"] {
        let facts = |path: &Path| {
            let found = fs::symlink_metadata(path).unwrap();
            let times = (found.mtime(), found.mtime_nsec());
            (found.mode(), found.uid(), found.gid(), found.size(), times)
        };
        assert_eq!(
            facts(&mount.path(name)),
            facts(&mount.backing().join(name)),
            "{name}"
        );
    }
    assert_eq!(mount.stats().disk.files, 2);
}

#[test]
fn after_unmount() {
    let mut mount = Mount::new(&[]);
    let path = mount.commit("entry", "content");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    let time = UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    mount.umount();
    let found = fs::metadata(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"content");
    assert_eq!(found.mode() & 0o7777, 0o640);
    assert_eq!(found.modified().unwrap(), time);
    // What changes there meanwhile is what the next mount serves.
    fs::write(mount.path("new"), "new").unwrap();
    fs::write(mount.path("temporary"), "changed").unwrap();
    fs::rename(mount.path("temporary"), &path).unwrap();
    mount.mount(&[]);
    assert_eq!(fs::read(&path).unwrap(), b"changed");
    assert_eq!(fs::read(mount.path("new")).unwrap(), b"new");
}

#[test]
fn changed_in_place_while_unmounted() {
    let mut mount = Mount::new(&[]);
    let path = mount.commit("entry", "content");
    mount.umount();
    fs::write(&path, "edited by hand").unwrap();
    mount.mount(&[]);
    assert_eq!(fs::read(&path).unwrap(), b"edited by hand");
    mount.umount();
    // And once more, now that it has a digest of its own.
    fs::write(&path, "").unwrap();
    mount.mount(&[]);
    assert_eq!(fs::read(&path).unwrap(), b"");
    assert_eq!(mount.stats().quarantined, 0);
}

#[test]
fn damaged_while_unmounted() {
    let mut mount = Mount::new(&[]);
    let name = |number| entries::name("a.html", number);
    let entry = |number| mount.commit(&name(number), entries::content(number, 3_000));
    let (flipped, torn) = (entry(1), entry(2));
    let nobodys = mount.commit("notes.txt", "content");
    mount.umount();
    let mut bits = fs::read(&flipped).unwrap();
    bits[1_000] ^= 4;
    for (path, damaged) in [(&flipped, &bits[..]), (&torn, b""), (&nobodys, b"cOntent")] {
        let time = fs::metadata(path).unwrap().modified().unwrap();
        fs::write(path, damaged).unwrap();
        // What a medium does to content leaves the time alone.
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(time).unwrap();
    }
    mount.mount(&[]);
    assert!(!flipped.exists() && !torn.exists());
    assert!(mount.log().contains("corrupt"), "{}", mount.log());
    assert_eq!(mount.stats().quarantined, 2);
    // What is no entry is not ours to set aside.
    let error = fs::read(&nobodys).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5));
    assert!(mount.backing().join("notes.txt").exists());
}

#[test]
fn after_kill() {
    let mut mount = Mount::new(&[]);
    mount.commit("entry", "content");
    mount.kill9();
    assert_eq!(fs::read(mount.backing().join("entry")).unwrap(), b"content");
    mount.mount(&[]);
    assert_eq!(fs::read(mount.path("entry")).unwrap(), b"content");
}

#[test]
fn private() {
    let mut mount = Mount::new(&[]);
    mount.commit("entry", "content");
    fs::create_dir(mount.path("sub")).unwrap();
    mount.commit("sub/entry", "content");
    assert_eq!(
        names(mount.dir()),
        ["entry", "sub"].map(OsString::from).into()
    );
    mount.umount();
    assert_eq!(
        names(mount.dir()),
        ["entry", "sub"].map(OsString::from).into()
    );
    assert_eq!(names(&mount.path("sub")), ["entry".into()].into());
    mount.mount(&[]);
    let mode = fs::metadata(mount.backing().join(".kidafs"))
        .unwrap()
        .mode();
    assert_eq!(mode & 0o7777, 0o700);
    assert_eq!(fs::read(mount.path("entry")).unwrap(), b"content");
}

#[test]
fn hidden_folder() {
    let mount = Mount::new(&[]);
    mount.commit("entry", "content");
    let read = |name: &str| fs::read_to_string(mount.path(".kidafs").join(name)).unwrap();
    assert_eq!(read("pid").trim(), mount.pid().as_raw_pid().to_string());
    let stats: serde_json::Value = serde_json::from_str(&read("stats.json")).unwrap();
    assert_eq!(stats["disk"]["files"], 1);
    let config: serde_json::Value = serde_json::from_str(&read("config.json")).unwrap();
    assert_eq!(config["memory"]["value"], "64MiB");
    assert!(read("metrics").contains("kidafs_"), "{}", read("metrics"));
    let entries = read("entries.jsonl");
    let entry: serde_json::Value = serde_json::from_str(entries.lines().next().unwrap()).unwrap();
    assert!(entries.contains("entry"), "{entry}");
    assert!(!names(mount.dir()).contains(&OsString::from(".kidafs")));
    // Each opening shows the state of that moment, and its size is true.
    mount.commit("second", "content");
    let size = |name: &str| {
        fs::metadata(mount.path(".kidafs").join(name))
            .unwrap()
            .len()
    };
    assert_eq!(mount.stats().disk.files, 2);
    wait_for("a size that is that of the content", || {
        (size("entries.jsonl") == read("entries.jsonl").len() as u64).then_some(())
    });
}

#[test]
fn an_ordinary_user_has_the_same_promises() {
    crate::support::situation::run_as_ordinary_user();
}
