//! What is seen between two steps of one change.

use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime};

use kidafs::clock::ManualClock;
use kidafs::config::{Config, Durability};
use kidafs::tier::{Digest, Faults, Step};
use kidafs::vfs::{About, Caller, Error, Notices, Patience, ROOT, RenameMode, Vfs};
use rustix::io::Errno;

use crate::support::entries::{content, name};

const ME: Caller = Caller { uid: 0, gid: 0 };

/// What is done in the middle of a change, once.
type Look = Box<dyn FnOnce(&Vfs) + Send>;

/// Looks before a step of the disk tier, while whoever does that step waits.
#[derive(Default)]
struct Looking {
    vfs: OnceLock<Weak<Vfs>>,
    look: parking_lot::Mutex<Option<(Step, Look)>>,
}

impl std::fmt::Debug for Looking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Looking")
    }
}

impl Looking {
    fn before(&self, step: Step, look: impl FnOnce(&Vfs) + Send + 'static) {
        *self.look.lock() = Some((step, Box::new(look)));
    }

    fn is_done(&self) -> bool {
        self.look.lock().is_none()
    }
}

impl Faults for Looking {
    fn before(&self, step: Step) -> Result<(), Errno> {
        let mut waiting = self.look.lock();
        if waiting.as_ref().is_some_and(|(own, _)| *own == step)
            && let Some((_, look)) = waiting.take()
        {
            drop(waiting);
            look(&self.vfs.get().unwrap().upgrade().unwrap());
        }
        Ok(())
    }
}

struct Core {
    _dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    looking: Arc<Looking>,
    vfs: Arc<Vfs>,
}

impl Core {
    fn new(durability: Durability) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        ));
        let config = Config {
            durability,
            // Content is read from disk each time.
            memory: 0,
            max_entries: 2,
            ..Config::default()
        };
        let looking = Arc::new(Looking::default());
        let vfs = Arc::new(
            Vfs::open(
                std::fs::File::open(dir.path()).unwrap().into(),
                config,
                clock.clone(),
                Notices::none(),
                About::default(),
                Some(looking.clone()),
            )
            .unwrap(),
        );
        looking.vfs.set(Arc::downgrade(&vfs)).unwrap();
        Self {
            _dir: dir,
            clock,
            looking,
            vfs,
        }
    }

    fn store(&self, name: &str, content: &[u8]) {
        let temporary = format!("{name}.abcdefgh.tmp");
        let from = (ROOT, OsStr::new(&temporary));
        let made = self.vfs.create(ROOT, from.1, 0o600, ME, true).unwrap();
        self.vfs.write(made.ino, 0, content, false).unwrap();
        self.vfs.forget(made.ino, 1);
        self.vfs
            .rename(
                from,
                (ROOT, OsStr::new(name)),
                RenameMode::Replace,
                Patience::Any,
            )
            .unwrap();
    }

    /// Looks a name up; the look-up is kept, as a program has the file open.
    fn open(&self, name: &str) -> u64 {
        let found = self.vfs.lookup(ROOT, OsStr::new(name), Patience::Any);
        found.unwrap().ino
    }
}

/// Content in an assertion's message: its length and its digest.
type Sum = (usize, Digest);

fn sum(content: &[u8]) -> Sum {
    (content.len(), Digest::of(content))
}

fn read(vfs: &Vfs, ino: u64) -> Result<Sum, Error> {
    let read = vfs.read(ino, 0, u32::MAX, Patience::Any);
    read.map(|bytes| sum(&bytes))
}

/// An entry that is looked up between its choice as a victim and its removal can be read.
#[test]
fn a_victim_that_is_looked_up_while_it_is_removed_stays_readable() {
    let core = Core::new(Durability::Crash);
    let [old, .., last] = [1, 2, 3].map(|source| name(&format!("{source}.html"), source));
    core.store(&old, &content(1, 5_000));
    core.clock.advance(Duration::from_secs(1));
    core.store(&name("2.html", 2), &content(2, 5_000));
    core.clock.advance(Duration::from_secs(100));
    let found = Arc::new(AtomicU64::new(0));
    let (seen, victim) = (Arc::clone(&found), old.clone());
    core.looking.before(Step::Rename, move |vfs| {
        let stat = vfs
            .lookup(ROOT, OsStr::new(&victim), Patience::Any)
            .unwrap();
        seen.store(stat.ino, Ordering::Relaxed);
    });
    // There is room for two: the oldest goes.
    core.store(&last, &content(3, 5_000));
    assert!(core.looking.is_done(), "nothing was removed");
    let gone = core.vfs.lookup(ROOT, OsStr::new(&old), Patience::Any);
    assert_eq!(gone, Err(Error::NoEntry));
    let ino = found.load(Ordering::Relaxed);
    assert_eq!(read(&core.vfs, ino), Ok(sum(&content(1, 5_000))));
    core.vfs.forget(ino, 1);
    assert_eq!(read(&core.vfs, ino), Err(Error::Stale));
}

/// The same of an entry that a rename replaces, and of one that is unlinked.
#[test]
fn what_is_looked_up_while_its_name_goes_stays_readable() {
    for replaced in [true, false] {
        for durability in [Durability::Async, Durability::Crash, Durability::Power] {
            let core = Core::new(durability);
            let entry = name("a.html", 1);
            core.store(&entry, &content(1, 5_000));
            core.vfs.persist_all();
            let found = Arc::new(AtomicU64::new(0));
            let (seen, looked) = (Arc::clone(&found), entry.clone());
            let step = if replaced {
                Step::Publish
            } else {
                Step::Rename
            };
            core.looking.before(step, move |vfs| {
                let stat = vfs
                    .lookup(ROOT, OsStr::new(&looked), Patience::Any)
                    .unwrap();
                seen.store(stat.ino, Ordering::Relaxed);
            });
            if replaced {
                core.store(&entry, &content(2, 6_000));
                core.vfs.persist_all();
            } else {
                core.vfs.unlink(ROOT, OsStr::new(&entry)).unwrap();
            }
            assert!(core.looking.is_done());
            let content = if replaced && durability == Durability::Async {
                // By then the name stood for the new one.
                content(2, 6_000)
            } else {
                content(1, 5_000)
            };
            let ino = found.load(Ordering::Relaxed);
            assert_eq!(
                read(&core.vfs, ino),
                Ok(sum(&content)),
                "{replaced} {durability:?}"
            );
        }
    }
}

/// Reads go by the name that a file has, while renames and exchanges change it.
#[test]
fn a_file_that_is_read_while_it_is_renamed_is_that_file() {
    let core = Core::new(Durability::Crash);
    let names = ["a", "b"];
    let contents = [content(1, 3_000), content(2, 4_000)];
    for (name, content) in names.iter().zip(&contents) {
        core.store(name, content);
    }
    let inodes = names.map(|name| core.open(name));
    core.vfs
        .mkdir(ROOT, OsStr::new("folder"), 0o700, ME)
        .unwrap();
    let folder = core.open("folder");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (ino, content) in inodes.iter().zip(&contents) {
            let (vfs, stop) = (&core.vfs, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let got = read(vfs, *ino);
                    if got != Ok(sum(content)) {
                        stop.store(true, Ordering::Relaxed);
                        panic!("{got:?} in place of {:?}", sum(content));
                    }
                }
            });
        }
        let began = Instant::now();
        let [a, b] = names.map(|name| (ROOT, OsStr::new(name)));
        let away = (folder, OsStr::new("c"));
        while began.elapsed()
            < Duration::from_secs(crate::support::live::size("KIDAFS_TEST_SECONDS", 2) as u64)
            && !stop.load(Ordering::Relaxed)
        {
            core.vfs
                .rename(a, b, RenameMode::Exchange, Patience::Any)
                .unwrap();
            core.vfs
                .rename(a, away, RenameMode::Replace, Patience::Any)
                .unwrap();
            core.vfs
                .rename(away, a, RenameMode::Replace, Patience::Any)
                .unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// A file that is being written to the disk by another thread is not waited for by who must not wait.
#[test]
fn who_must_not_wait_does_not_wait_for_a_file_that_is_being_written() {
    let core = Core::new(Durability::Crash);
    let made = core
        .vfs
        .create(ROOT, OsStr::new("in place"), 0o600, ME, true);
    let ino = made.unwrap().ino;
    core.vfs.write(ino, 0, b"content", false).unwrap();
    core.looking.before(Step::Write, move |vfs| {
        let read = vfs.read(ino, 0, 10, Patience::None);
        assert_eq!(read.map(drop), Err(Error::WouldWait));
        let found = vfs.lookup(ROOT, OsStr::new("in place"), Patience::None);
        assert!(found.is_ok(), "what is known is answered");
    });
    assert_eq!(core.vfs.persist_all().failed, 0);
    assert!(core.looking.is_done());
    assert_eq!(read(&core.vfs, ino), Ok(sum(b"content")));
}
