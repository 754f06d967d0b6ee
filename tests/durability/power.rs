//! A power cut: what the backing filesystem had written to its device at a random moment under load is mounted
//! and checked.
//!
//! The device is a file on a filesystem that copies a file at one instant. The copy has what was sent to the
//! device by then, in the order in which it was sent, as a disk without a volatile cache would. What was only in
//! the memory of the filesystem is lost with it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::entries::{Random, content, files, name, stored_digest};
use crate::support::live::{Live, store};
use crate::support::loopfs::{Kind, LoopFs, snapshot, snapshot_host};
use kidafs::tier::Digest;

/// Each name's contents, in the order in which they were begun, and how many of them are acknowledged.
type Journal = BTreeMap<String, (Vec<Digest>, usize)>;

fn load(dir: &Path, thread: usize, journal: &Mutex<Journal>, going: &AtomicBool) {
    let mut random = Random(thread as u64);
    while going.load(Ordering::Relaxed) {
        // Half of them new, half of them rewritten.
        let (template, source) = match random.below(2) {
            0 => (format!("new{thread}.html"), random.next()),
            _ => (format!("old{thread}-{}.html", random.below(10)), 1),
        };
        let name = name(&template, source);
        let bytes = content(random.next(), 600 + random.below(20_000) as usize);
        {
            let mut journal = journal.lock().unwrap();
            journal
                .entry(name.clone())
                .or_default()
                .0
                .push(Digest::of(&bytes));
        }
        store(dir, &name, &bytes).unwrap();
        let mut journal = journal.lock().unwrap();
        let one = journal.get_mut(&name).unwrap();
        one.1 = one.0.len();
    }
}

/// Copies of the device, each with what was acknowledged before it was made and what was begun after.
struct Copies {
    images: Vec<(PathBuf, Journal, Journal)>,
    folder: tempfile::TempDir,
    _host: LoopFs,
}

fn copies_under_load(kind: Kind, durability: &str, count: usize) -> Copies {
    let folder = crate::support::live::folder();
    let bytes = kind.least_size();
    // Copies share what they have in common with the original.
    let host = snapshot_host(folder.path(), bytes * 2 + (1 << 30));
    let device = LoopFs::make(host.path(), kind, bytes);
    let backing = device.directory("backing");
    let dir = folder.path().join("cache");
    let live = Live::start(
        &dir,
        &[
            "--backing",
            backing.to_str().unwrap(),
            "--durability",
            durability,
        ],
    );
    let (journal, going) = (Mutex::new(Journal::new()), AtomicBool::new(true));
    let mut images = Vec::new();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (dir, journal, going) = (&dir, &journal, &going);
            scope.spawn(move || load(dir, thread, journal, going));
        }
        let mut random = Random(7);
        let mut elsewhere = fs::File::create(device.path().join("elsewhere")).unwrap();
        for number in 0..count {
            for _ in 0..1 + random.below(5) {
                std::thread::sleep(Duration::from_millis(random.below(50)));
                // Another program's flush: names get to the device before the content they stand for.
                elsewhere.write_all(b"x").unwrap();
                elsewhere.sync_all().unwrap();
            }
            std::thread::sleep(Duration::from_millis(random.below(50)));
            let before = journal.lock().unwrap().clone();
            let copy = host.path().join(format!("copy{number}"));
            snapshot(device.image(), &copy);
            images.push((copy, before, journal.lock().unwrap().clone()));
        }
        going.store(false, Ordering::Relaxed);
    });
    live.unmount();
    drop(device);
    assert!(images.last().unwrap().1.len() > 10, "next to no load");
    Copies {
        images,
        folder,
        _host: host,
    }
}

fn mounted(copies: &Copies, kind: Kind, image: &Path) -> LoopFs {
    LoopFs::mount(copies.folder.path(), "copy", kind, image, 0)
}

#[test]
fn power_what_was_acknowledged_survives_a_power_cut() {
    let count = crate::support::live::size("KIDAFS_TEST_POWER_CUTS", 6);
    for kind in Kind::ON_A_DEVICE {
        let copies = copies_under_load(kind, "power", count);
        let mut checked = 0;
        for (image, before, after) in &copies.images {
            let fs = mounted(&copies, kind, image);
            let backing = fs.path().join("backing");
            let found = files(&backing);
            for (name, (_, acknowledged)) in before {
                if *acknowledged == 0 {
                    continue;
                }
                let bytes = found.get(name);
                let digest = bytes.map(|bytes| Digest::of(bytes));
                // It may have been rewritten between the journal's copy and the device's.
                let allowed = &after[name].0[acknowledged - 1..];
                assert!(
                    digest.is_some_and(|digest| allowed.contains(&digest)),
                    "{kind:?}: {name} is {digest:?}, {} bytes, not one of {allowed:?}",
                    bytes.map_or(0, Vec::len)
                );
                assert_eq!(
                    stored_digest(&backing.join(name)),
                    digest,
                    "{kind:?}: {name}"
                );
                checked += 1;
            }
        }
        println!("{kind:?}: {checked} acknowledged entries in {count} images");
    }
}

#[test]
fn crash_no_torn_entry_is_served_after_a_power_cut() {
    let count = crate::support::live::size("KIDAFS_TEST_POWER_CUTS", 6);
    for kind in Kind::ON_A_DEVICE {
        let copies = copies_under_load(kind, "crash", count);
        let (mut served, mut missing, mut damaged) = (0, 0, 0);
        for (image, before, after) in &copies.images {
            let fs = mounted(&copies, kind, image);
            let backing = fs.path().join("backing");
            if !backing.exists() {
                missing += before.len();
                continue;
            }
            let again = copies.folder.path().join("again");
            let live = Live::start(&again, &["--backing", backing.to_str().unwrap()]);
            for (name, (begun, _)) in after {
                match fs::read(again.join(name)) {
                    Ok(bytes) => {
                        let digest = Digest::of(&bytes);
                        assert!(
                            begun.contains(&digest),
                            "{kind:?}: {name} was never written so"
                        );
                        served += 1;
                    }
                    Err(_) => missing += usize::from(before.contains_key(name)),
                }
            }
            damaged += live.stats().quarantined;
            live.unmount();
        }
        println!(
            "{kind:?}: {served} served, {missing} missing, {damaged} set aside in {count} images"
        );
    }
}
