//! The backing directory is a plain cache directory, under a real mount of the real binary.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common {
    pub(crate) mod daemon;
    pub(crate) mod mount;
}

use std::fs;

use common::daemon::is_mount_root;
use common::mount::Mount;

/// Commits an entry the way engines do.
fn commit(mount: &Mount, name: &str, content: &[u8]) {
    let temporary = mount.path(format!("{name}.abcdefgh.tmp"));
    fs::write(&temporary, content).unwrap();
    fs::rename(temporary, mount.path(name)).unwrap();
}

#[test]
fn default() {
    let mut mount = Mount::prepared(&[], |dir| fs::write(dir.join("before"), "old").unwrap());
    assert!(is_mount_root(mount.dir()));
    assert_eq!(fs::read(mount.path("before")).unwrap(), b"old");
    commit(&mount, "entry", b"new");
    assert_eq!(fs::read(mount.backing().join("entry")).unwrap(), b"new");
    assert_eq!(mount.stats().commits, 1);
    mount.umount();
    assert!(!is_mount_root(mount.dir()));
    assert_eq!(fs::read(mount.path("entry")).unwrap(), b"new");
}

#[test]
fn after_kill() {
    let mut mount = Mount::new(&[]);
    commit(&mount, "entry", b"content");
    mount.kill9();
    assert_eq!(fs::read(mount.backing().join("entry")).unwrap(), b"content");
    mount.mount(&[]);
    assert_eq!(fs::read(mount.path("entry")).unwrap(), b"content");
}
