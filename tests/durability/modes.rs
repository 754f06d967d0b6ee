//! What each durability promises while the power stays on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::entries::{content, name};
use crate::support::live::{Live, store, until};
use rustix::process::Signal;

/// A mount whose entries are written later, and the directory they are written to.
fn asynchronous(folder: &Path) -> (Live, PathBuf) {
    let backing = folder.join("backing");
    let option = backing.to_str().unwrap();
    let options = ["--backing", option, "--durability", "async"];
    (Live::start(&folder.join("cache"), &options), backing)
}

#[test]
fn async_an_entry_is_served_at_once_and_written_within_the_delay() {
    let folder = crate::support::live::folder();
    let (live, backing) = asynchronous(folder.path());
    let dir = live.dir();
    let entry = name("a.html", 1);
    store(dir, &entry, &content(1, 10_000)).unwrap();
    assert!(!backing.join(&entry).exists(), "it was not left for later");
    assert_eq!(fs::read(dir.join(&entry)).unwrap(), content(1, 10_000));
    // The stated delay is a second of quiet; the rest is for a machine that is busy.
    until("it is written", Duration::from_secs(10), || {
        backing.join(&entry).exists()
    });
    assert_eq!(fs::read(backing.join(&entry)).unwrap(), content(1, 10_000));
    live.unmount();
}

#[test]
fn async_what_a_program_has_flushed_is_written_by_the_rename() {
    let folder = crate::support::live::folder();
    let (live, backing) = asynchronous(folder.path());
    let dir = live.dir();
    let entry = name("a.html", 1);
    let temporary = dir.join(format!("{entry}.abcdefgh.tmp"));
    fs::write(&temporary, content(1, 10_000)).unwrap();
    fs::File::open(&temporary).unwrap().sync_all().unwrap();
    fs::rename(&temporary, dir.join(&entry)).unwrap();
    assert_eq!(fs::read(backing.join(&entry)).unwrap(), content(1, 10_000));
    live.unmount();
}

#[test]
fn an_orderly_end_writes_everything_first() {
    for end in ["umount", "SIGTERM", "SIGINT", "external"] {
        let folder = crate::support::live::folder();
        let dir = folder.path().join("cache");
        let mut live = Live::start(&dir, &["--durability", "async"]);
        let entry = name("a.html", 1);
        store(&dir, &entry, &content(1, 10_000)).unwrap();
        fs::write(dir.join("in-place"), b"written in place").unwrap();
        match end {
            "SIGTERM" => live.signal(Signal::TERM),
            "SIGINT" => live.signal(Signal::INT),
            "umount" => {
                let ended = crate::support::live::kidafs()
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
        live.wait(Duration::from_secs(20));
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
