//! Eviction as programs see it: at once, and never under their hands.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::time::Duration;

use crate::support::entries::{content, name};
use crate::support::live::{Live, store, until};
use kidafs::evict::Reason;

/// Has the two entries of one template, the first one superseded for longer than the grace.
fn with_a_superseded_entry(dir: &Path, options: &[&str]) -> (Live, String, String) {
    let all = [
        &[
            "--entry-timeout",
            "50ms",
            "--superseded-grace",
            "100ms",
            "--sweep-interval",
            "1h",
        ],
        options,
    ];
    let live = Live::start(dir, &all.concat());
    let (old, new) = (name("a.html", 1), name("a.html", 2));
    store(dir, &old, &content(1, 10_000)).unwrap();
    store(dir, &new, &content(2, 10_000)).unwrap();
    (live, old, new)
}

fn sweep_until_gone(live: &Live) {
    until("it is evicted", Duration::from_secs(20), || {
        live.ask_to_sweep();
        // Not asked of the mount: a look-up is a use.
        live.stats().evictions.contains_key(&Reason::Superseded)
    });
}

#[test]
fn an_evicted_entry_is_missed_at_once() {
    let folder = crate::support::live::folder();
    let dir = folder.path().join("cache");
    let (live, old, new) = with_a_superseded_entry(&dir, &["--entry-timeout", "90ms"]);
    assert!(fs::read(dir.join(&old)).is_ok());
    sweep_until_gone(&live);
    let error = fs::read(dir.join(&old)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(fs::read(dir.join(&new)).unwrap(), content(2, 10_000));
    assert_eq!(crate::support::entries::names(&dir), [new]);
    assert_eq!(live.stats().evictions[&Reason::Superseded], 1);
    live.unmount();
}

#[test]
fn a_name_that_the_kernel_has_cached_is_gone_with_its_entry() {
    let folder = crate::support::live::folder();
    let dir = folder.path().join("cache");
    // Names are cached for an hour, and the budget does not care.
    let live = Live::start(
        &dir,
        &[
            "--entry-timeout",
            "59m",
            "--superseded-grace",
            "1h",
            "--max-entries",
            "10",
        ],
    );
    let first = name("first.html", 1);
    store(&dir, &first, &content(1, 5_000)).unwrap();
    assert!(fs::read(dir.join(&first)).is_ok());
    for number in 0..10 {
        store(
            &dir,
            &name(&format!("t{number}.html"), 1),
            &content(2, 5_000),
        )
        .unwrap();
    }
    assert_eq!(live.stats().evictions[&Reason::Budget], 1);
    until("the name is gone", Duration::from_secs(5), || {
        fs::read(dir.join(&first)).is_err_and(|error| error.kind() == ErrorKind::NotFound)
    });
    live.unmount();
}

#[test]
fn a_file_that_is_open_stays_readable_after_it_was_evicted() {
    for memory in ["64MiB", "0"] {
        let folder = crate::support::live::folder();
        let dir = folder.path().join("cache");
        let (live, old, _) = with_a_superseded_entry(&dir, &["--memory", memory]);
        let mut open = File::open(dir.join(&old)).unwrap();
        let gone = || {
            let listed = crate::support::entries::names(&dir);
            !listed.contains(&old)
        };
        until("it is evicted", Duration::from_secs(20), || {
            live.ask_to_sweep();
            gone()
        });
        // Nothing of it is in the page cache.
        rustix::fs::fadvise(&open, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let mut bytes = Vec::new();
        open.read_to_end(&mut bytes).unwrap();
        assert!(
            bytes == content(1, 10_000),
            "memory {memory}: other content"
        );
        drop(open);
        // Its name is free for another.
        store(&dir, &old, &content(3, 2_000)).unwrap();
        assert_eq!(fs::read(dir.join(&old)).unwrap(), content(3, 2_000));
        live.unmount();
    }
}

#[test]
fn the_counters_agree_with_what_was_done() {
    let folder = crate::support::live::folder();
    let dir = folder.path().join("cache");
    let live = Live::start(&dir, &[]);
    for number in 0..20 {
        store(
            &dir,
            &name(&format!("t{number}.html"), 1),
            &content(number, 5_000),
        )
        .unwrap();
    }
    for number in 0..7 {
        fs::remove_file(dir.join(name(&format!("t{number}.html"), 1))).unwrap();
    }
    for number in 100..103 {
        fs::read(dir.join(name("missing.html", number))).unwrap_err();
    }
    let staged = dir.join(format!("{}.abcdefgh.tmp", name("staged.html", 1)));
    fs::write(&staged, b"12345").unwrap();
    let stats = live.stats();
    assert_eq!(stats.commits, 20);
    assert_eq!(stats.commit_latency.count(), 20);
    assert_eq!((stats.disk.files, stats.disk.bytes), (13, 13 * 8_192));
    assert_eq!((stats.staging.files, stats.staging.bytes), (1, 5));
    assert_eq!(stats.memory.files, 13);
    assert!(stats.lookups.misses >= 3);
    assert_eq!(stats.requests["rename"], 20);
    assert_eq!(stats.requests["unlink"], 7);
    assert_eq!(stats.requests["create"], 21);
    assert!(stats.evictions.is_empty());
    assert_eq!(stats.quarantined, 0);
    let space = rustix::fs::statvfs(&dir).unwrap();
    assert_eq!(
        (space.f_blocks - space.f_bfree) * space.f_frsize,
        13 * 8_192,
        "df"
    );
    live.unmount();
}
