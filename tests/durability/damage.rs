//! Damage to backing files while no daemon runs: what is not as it was committed is missing, not served.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use crate::support::entries::{Random, content, name};
use crate::support::live::{Live, store, until};
use kidafs::evict::Reason;

/// The most files that the quarantine keeps.
const QUARANTINE: usize = 64;

/// Commits `count` entries of `size` bytes and ends the daemon.
fn fill(dir: &Path, count: usize, size: usize) -> Vec<String> {
    let live = Live::start(dir, &[]);
    let names = (0..count as u64).map(|number| {
        let name = name("a.html", number);
        store(dir, &name, &content(number, size)).unwrap();
        name
    });
    let names = names.collect();
    live.unmount();
    names
}

/// Reads each name on a mount, as an engine does: all are missing, and counted as corrupt.
fn assert_all_missing(dir: &Path, names: &[String]) {
    let live = Live::start(dir, &[]);
    for name in names {
        let error = fs::read(dir.join(name)).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::NotFound, "{name}: {error}");
    }
    let stats = live.stats();
    assert_eq!(
        stats.evictions.get(&Reason::Corrupt).copied(),
        Some(names.len() as u64)
    );
    assert_eq!(stats.quarantined as usize, names.len().min(QUARANTINE));
    assert_eq!((stats.disk.files, stats.disk.bytes), (0, 0));
    assert_eq!(
        live.log().matches("was set aside").count(),
        names.len(),
        "logged once each"
    );
    live.unmount();
    assert_eq!(crate::support::entries::names(dir), Vec::<String>::new());
    let kept = fs::read_dir(dir.join(".kidafs/quarantine"))
        .unwrap()
        .count();
    assert_eq!(kept, names.len().min(QUARANTINE));
}

#[test]
fn an_entry_with_one_bit_flipped_is_missing_and_set_aside() {
    let folder = crate::support::live::folder();
    let dir = folder.path().join("cache");
    let names = fill(
        &dir,
        crate::support::live::size("KIDAFS_TEST_FLIPS", 1_000),
        3_000,
    );
    let mut random = Random(4);
    for name in &names {
        let path = dir.join(name);
        let mut bytes = fs::read(&path).unwrap();
        let bit = random.below(bytes.len() as u64 * 8) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
        // In place, so that the digest stays.
        fs::write(&path, bytes).unwrap();
    }
    assert_all_missing(&dir, &names);
}

#[test]
fn an_entry_truncated_to_any_length_is_missing_and_set_aside() {
    let folder = crate::support::live::folder();
    let dir = folder.path().join("cache");
    let size = 700;
    let names = fill(&dir, size, size);
    for (length, name) in names.iter().enumerate() {
        let file = fs::File::options()
            .write(true)
            .open(dir.join(name))
            .unwrap();
        file.set_len(length as u64).unwrap();
    }
    assert_all_missing(&dir, &names);
}

#[test]
fn an_entry_that_is_listed_before_it_is_read_is_not_served_either() {
    let folder = crate::support::live::folder();
    let dir = folder.path().join("cache");
    let names = fill(&dir, 20, 3_000);
    for name in &names {
        let mut bytes = fs::read(dir.join(name)).unwrap();
        bytes[1_000] ^= 4;
        fs::write(dir.join(name), bytes).unwrap();
    }
    let live = Live::start(&dir, &[]);
    // The listing brings attributes with it, so that the kernel need not look the names up.
    for entry in fs::read_dir(&dir).unwrap() {
        entry.unwrap().metadata().unwrap();
    }
    for name in &names {
        fs::read(dir.join(name)).expect_err(name);
        // As soon as the kernel has been told.
        until("the name is gone", Duration::from_secs(5), || {
            let error = fs::read(dir.join(name)).expect_err(name);
            error.kind() == ErrorKind::NotFound
        });
    }
    let stats = live.stats();
    assert_eq!(stats.evictions.get(&Reason::Corrupt), Some(&20));
    live.unmount();
}

#[test]
fn what_was_written_without_a_daemon_is_adopted_if_it_is_whole() {
    let folder = crate::support::live::folder();
    let dir = folder.path().join("cache");
    fill(&dir, 1, 3_000);
    let (whole, torn, other) = (name("whole.html", 1), name("torn.html", 1), "notes.txt");
    fs::write(dir.join(&whole), content(1, 3_000)).unwrap();
    fs::write(dir.join(&torn), &content(1, 3_000)[..200]).unwrap();
    fs::write(dir.join(other), "anything").unwrap();
    let live = Live::start(&dir, &[]);
    assert_eq!(fs::read(dir.join(&whole)).unwrap(), content(1, 3_000));
    assert_eq!(fs::read(dir.join(other)).unwrap(), b"anything");
    let error = fs::read(dir.join(&torn)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    live.unmount();
    // From now on it carries a digest.
    assert!(crate::support::entries::stored_digest(&dir.join(&whole)).is_some());
}
