//! What each durability promises while the power stays on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::entries::{content, name, store};
use crate::support::mount::{Mount, until};
use rustix::process::Signal;

/// A mount whose entries are written later, and the directory they are written to.
fn asynchronous(folder: &Path) -> (Mount, PathBuf) {
    let backing = folder.join("backing");
    let option = backing.to_str().unwrap();
    let options = ["--backing", option, "--durability", "async"];
    (Mount::start(&folder.join("cache"), &options), backing)
}

#[test]
fn async_an_entry_is_served_at_once_and_written_within_the_delay() {
    let folder = crate::support::daemon::folder();
    let (mut mount, backing) = asynchronous(folder.path());
    let dir = &mount.dir().to_owned();
    let entry = name("a.html", 1);
    store(dir, &entry, &content(1, 10_000)).unwrap();
    assert!(!backing.join(&entry).exists(), "it was not left for later");
    assert_eq!(fs::read(dir.join(&entry)).unwrap(), content(1, 10_000));
    // The stated delay is a second of quiet; the rest is for a machine that is busy.
    until("it is written", Duration::from_secs(10), || {
        backing.join(&entry).exists()
    });
    assert_eq!(fs::read(backing.join(&entry)).unwrap(), content(1, 10_000));
    mount.umount();
}

#[test]
fn async_what_a_program_has_flushed_is_written_by_the_rename() {
    let folder = crate::support::daemon::folder();
    let (mut mount, backing) = asynchronous(folder.path());
    let dir = &mount.dir().to_owned();
    let entry = name("a.html", 1);
    let temporary = dir.join(format!("{entry}.abcdefgh.tmp"));
    fs::write(&temporary, content(1, 10_000)).unwrap();
    fs::File::open(&temporary).unwrap().sync_all().unwrap();
    fs::rename(&temporary, dir.join(&entry)).unwrap();
    assert_eq!(fs::read(backing.join(&entry)).unwrap(), content(1, 10_000));
    mount.umount();
}

#[test]
fn an_orderly_end_writes_everything_first() {
    for end in ["umount", "SIGTERM", "SIGINT", "external"] {
        let folder = crate::support::daemon::folder();
        let dir = folder.path().join("cache");
        let mut mount = Mount::start(&dir, &["--durability", "async"]);
        let entry = name("a.html", 1);
        store(&dir, &entry, &content(1, 10_000)).unwrap();
        fs::write(dir.join("in-place"), b"written in place").unwrap();
        match end {
            "SIGTERM" => mount.signal(Signal::TERM),
            "SIGINT" => mount.signal(Signal::INT),
            "umount" => {
                let ended = crate::support::mount::kidafs()
                    .arg("umount")
                    .arg(&dir)
                    .status()
                    .unwrap();
                assert!(ended.success());
            }
            _ => {
                let flags = rustix::mount::UnmountFlags::empty();
                rustix::mount::unmount(&dir, flags).unwrap();
            }
        }
        mount.wait();
        assert_eq!(
            fs::read(dir.join(&entry)).unwrap(),
            content(1, 10_000),
            "{end}"
        );
        assert_eq!(
            fs::read(dir.join("in-place")).unwrap(),
            b"written in place",
            "{end}"
        );
    }
}
