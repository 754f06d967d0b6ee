//! A listing is complete.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kidafs::clock::SystemClock;
use kidafs::config::Config;
use kidafs::vfs::{About, Caller, Notices, Patience, ROOT, RenameMode, Vfs};
use proptest::prelude::*;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::mount::Mount;

/// The names that a listing under way has shown, and how often.
type Shown = BTreeMap<String, usize>;

fn shown(listing: fs::ReadDir) -> Shown {
    let mut shown = Shown::new();
    for entry in listing {
        let name = entry.unwrap().file_name().into_string().unwrap();
        *shown.entry(name).or_default() += 1;
    }
    shown
}

fn filled(mount: &Mount, count: usize) -> std::path::PathBuf {
    let dir = mount.path("listed");
    fs::create_dir(&dir).unwrap();
    for number in 0..count {
        File::create(dir.join(format!("f{number}"))).unwrap();
    }
    dir
}

fn rename(dir: &Path, from: &str, to: &str, flags: RenameFlags) {
    renameat_with(CWD, dir.join(from), CWD, dir.join(to), flags).unwrap();
}

#[test]
fn a_name_that_is_replaced_while_it_is_listed_is_shown_once() {
    let mount = Mount::new(&[]);
    // So many that the kernel asks more than once.
    let dir = filled(&mount, 3_000);
    let mut listing = fs::read_dir(&dir).unwrap();
    let first = listing.next().unwrap().unwrap().file_name();
    let first = first.to_str().unwrap();
    File::create(dir.join("new")).unwrap();
    rename(&dir, "new", first, RenameFlags::empty());
    let rest = shown(listing);
    assert_eq!(rest.get(first), None, "{first} is shown again");
    assert!(rest.values().all(|times| *times == 1));
}

#[test]
fn a_listing_ends_while_its_reader_renames_and_makes_anew_what_it_is_shown() {
    let mount = Mount::new(&[]);
    let dir = filled(&mount, 1_500);
    let mut seen = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        rename(&dir, &name, &format!("r{seen}"), RenameFlags::empty());
        seen += 1;
        assert!(seen <= 1_500, "it does not end");
    }
    assert_eq!(seen, 1_500, "each was shown once");
    let mut seen = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        fs::remove_file(&path).unwrap();
        File::create(&path).unwrap();
        File::create(dir.join(format!("more{seen}"))).unwrap();
        seen += 1;
        assert!(seen <= 1_500, "it does not end");
    }
    assert_eq!(seen, 1_500, "each was shown once");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 3_000);
}

#[test]
fn names_that_are_exchanged_while_they_are_listed_are_shown_once() {
    let mount = Mount::new(&[]);
    let dir = filled(&mount, 3_000);
    let other = mount.path("other");
    fs::create_dir(&other).unwrap();
    File::create(other.join("x")).unwrap();
    let mut listing = fs::read_dir(&dir).unwrap();
    listing.next().unwrap().unwrap();
    for number in (0..2_998).step_by(2) {
        let (one, two) = (format!("f{number}"), format!("f{}", 2_999 - number));
        rename(&dir, &one, &two, RenameFlags::EXCHANGE);
        rename(&dir, &one, "../other/x", RenameFlags::EXCHANGE);
    }
    let rest = shown(listing);
    assert_eq!(rest.len(), 2_999);
    assert!(rest.values().all(|times| *times == 1));
}

#[test]
fn an_evicted_name_is_not_listed_afterwards() {
    let mount = Mount::new(&["--max-entries", "100", "--sweep-interval", "1s"]);
    let stop = Arc::new(AtomicBool::new(false));
    let listers = (0..3).map(|_| {
        let (dir, stop) = (mount.dir().to_owned(), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                fs::read_dir(&dir).unwrap().for_each(drop);
            }
        })
    });
    let listers: Vec<_> = listers.collect();
    for round in 0..20 {
        for number in 0..150 {
            mount.commit(
                &crate::support::entries::name(&format!("e{round}"), number),
                crate::support::entries::content(number, 1_000),
            );
        }
    }
    stop.store(true, Ordering::Relaxed);
    for lister in listers {
        lister.join().unwrap();
    }
    // What the kernel was still being shown is put right a moment later.
    crate::support::mount::wait_for("a listing without ghosts", || {
        let names = fs::read_dir(mount.dir())
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let ghosts = names
            .filter(|path| path.symlink_metadata().is_err())
            .count();
        (ghosts == 0).then_some(())
    });
}

/// What is done to a directory between two parts of its listing.
#[derive(Debug, Clone)]
enum Change {
    Create(usize),
    Unlink(usize),
    Rename(usize, usize, RenameMode),
    Mkdir(usize),
}

const NAMES: usize = 12;

fn change() -> impl Strategy<Value = Change> {
    let name = 0..NAMES;
    let mode = prop_oneof![
        Just(RenameMode::Replace),
        Just(RenameMode::NoReplace),
        Just(RenameMode::Exchange)
    ];
    prop_oneof![
        2 => name.clone().prop_map(Change::Create),
        2 => name.clone().prop_map(Change::Unlink),
        1 => name.clone().prop_map(Change::Mkdir),
        4 => (name.clone(), name, mode).prop_map(|(from, to, mode)| Change::Rename(from, to, mode)),
    ]
}

const ME: Caller = Caller { uid: 0, gid: 0 };

fn apply(vfs: &Vfs, change: &Change) {
    let name = |number: usize| format!("n{number}");
    // What cannot be done is not done.
    match change {
        Change::Create(number) => {
            let made = vfs.create(ROOT, OsStr::new(&name(*number)), 0o600, ME, true);
            let _ = made.map(|stat| vfs.forget(stat.ino, 1));
        }
        Change::Mkdir(number) => {
            let made = vfs.mkdir(ROOT, OsStr::new(&name(*number)), 0o700, ME);
            let _ = made.map(|stat| vfs.forget(stat.ino, 1));
        }
        Change::Unlink(number) => {
            let name = name(*number);
            let _ = vfs
                .unlink(ROOT, OsStr::new(&name))
                .or_else(|_| vfs.rmdir(ROOT, OsStr::new(&name)));
        }
        Change::Rename(from, to, mode) => {
            let (from, to) = (name(*from), name(*to));
            let _ = vfs.rename(
                (ROOT, OsStr::new(&from)),
                (ROOT, OsStr::new(&to)),
                *mode,
                Patience::Any,
            );
        }
    }
}

fn present(vfs: &Vfs) -> Vec<bool> {
    let found = (0..NAMES).map(|number| {
        let found = vfs.lookup(ROOT, OsStr::new(&format!("n{number}")), Patience::Any);
        found.map(|stat| vfs.forget(stat.ino, 1)).is_ok()
    });
    found.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// At any size of the reader's buffer, whatever happens between its parts, and whoever else lists meanwhile.
    #[test]
    fn each_name_once_and_none_that_stays_is_missed(
        before in prop::collection::vec(change(), 0..20),
        parts in prop::collection::vec((1..5usize, prop::collection::vec(change(), 0..8), any::<bool>()), 1..30),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap().into();
        let clock = Arc::new(SystemClock);
        let vfs = Vfs::open(root, Config::default(), clock, Notices::none(), About::default(), None);
        let vfs = vfs.unwrap();
        before.iter().for_each(|change| apply(&vfs, change));
        let mut stays = present(&vfs);
        let (mut shown, mut position, mut asked) = (Shown::new(), 0, 0);
        loop {
            let (size, changes, another) = &parts[asked % parts.len()];
            let mut room = *size;
            vfs.read_dir(ROOT, position, false, |entry| {
                if room == 0 {
                    return false;
                }
                room -= 1;
                position = entry.position;
                *shown.entry(entry.name.to_str().unwrap().to_owned()).or_default() += 1;
                true
            }).unwrap();
            if room > 0 {
                break;
            }
            if *another {
                vfs.read_dir(ROOT, 0, false, |_| true).unwrap();
            }
            for change in changes {
                apply(&vfs, change);
                for (stays, present) in stays.iter_mut().zip(present(&vfs)) {
                    *stays &= present;
                }
            }
            asked += 1;
            prop_assert!(asked < 60, "it does not end: {shown:?}");
        }
        for (name, times) in &shown {
            prop_assert_eq!(*times, 1, "{}", name);
        }
        for (number, stays) in stays.iter().enumerate() {
            if *stays {
                prop_assert!(shown.contains_key(&format!("n{number}")), "n{} is missed", number);
            }
        }
    }
}
