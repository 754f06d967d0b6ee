//! A failure of the backing directory at every step of every operation: nothing that was committed is lost,
//! no draft is left, memory and disk agree, and a later try works.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use crate::support::entries::{content, drafts, files, name};
use kidafs::clock::ManualClock;
use kidafs::config::{Config, Durability};
use kidafs::tier::{Digest, Faults, Step};
use kidafs::vfs::{About, Caller, Error, Kind, Notices, Patience, ROOT, RenameMode, Vfs};
use rustix::io::Errno;

/// Fails one step, and perhaps all that follow.
#[derive(Debug)]
struct Failing {
    errno: Errno,
    /// Steps to let pass; `usize::MAX`: all.
    left: AtomicUsize,
    /// Whether the steps after the failed one fail too.
    stays: bool,
    steps: parking_lot::Mutex<Vec<Step>>,
}

const ALL: usize = usize::MAX;

impl Failing {
    fn new(errno: Errno, stays: bool) -> Arc<Self> {
        Arc::new(Self {
            errno,
            left: AtomicUsize::new(ALL),
            stays,
            steps: parking_lot::Mutex::default(),
        })
    }

    fn after(&self, steps: usize) {
        self.steps.lock().clear();
        self.left.store(steps, Ordering::Relaxed);
    }
}

impl Faults for Failing {
    fn before(&self, step: Step) -> Result<(), Errno> {
        let left = self.left.load(Ordering::Relaxed);
        if left == ALL {
            return Ok(());
        }
        self.steps.lock().push(step);
        if left > 0 {
            self.left.store(left - 1, Ordering::Relaxed);
            return Ok(());
        }
        if !self.stays {
            self.left.store(ALL, Ordering::Relaxed);
        }
        Err(self.errno)
    }
}

/// Content in an assertion's message: its length and its digest.
type Sum = (usize, Digest);

fn sum(content: &[u8]) -> Sum {
    (content.len(), Digest::of(content))
}

const ME: Caller = Caller { uid: 0, gid: 0 };

struct Core {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    faults: Arc<Failing>,
    vfs: Vfs,
}

impl Core {
    fn new(durability: Durability, faults: Arc<Failing>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let clock = Arc::new(ManualClock::new(start));
        let config = Config {
            durability,
            // Content is read from disk each time.
            memory: 0,
            ..Config::default()
        };
        let root = std::fs::File::open(dir.path()).unwrap().into();
        let vfs = Vfs::open(
            root,
            config,
            clock.clone(),
            Notices::none(),
            About::default(),
            Some(faults.clone()),
        )
        .unwrap();
        Self {
            dir,
            clock,
            faults,
            vfs,
        }
    }

    fn stage(&self, name: &str, content: &[u8]) -> u64 {
        let made = self.vfs.create(ROOT, OsStr::new(name), 0o600, ME, true);
        let ino = made.unwrap().ino;
        self.vfs.write(ino, 0, content, false).unwrap();
        self.vfs.forget(ino, 1);
        ino
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let (from, to) = (OsStr::new(from), OsStr::new(to));
        self.vfs
            .rename((ROOT, from), (ROOT, to), RenameMode::Replace, Patience::Any)
            .map(drop)
    }

    fn store(&self, name: &str, content: &[u8]) {
        let temporary = format!("{name}.abcdefgh.tmp");
        self.stage(&temporary, content);
        self.rename(&temporary, name).unwrap();
    }

    fn unlink(&self, name: &str) -> Result<(), Error> {
        self.vfs.unlink(ROOT, OsStr::new(name))
    }

    /// Every file as a program sees it.
    fn seen(&self) -> BTreeMap<String, Sum> {
        let mut names = Vec::new();
        let listed = self.vfs.read_dir(ROOT, 0, false, |entry| {
            if entry.stat.kind == Kind::File {
                names.push(entry.name.to_owned());
            }
            true
        });
        listed.unwrap();
        let read = names.into_iter().map(|name| {
            let stat = self.vfs.lookup(ROOT, &name, Patience::Any).unwrap();
            let bytes = self
                .vfs
                .read(stat.ino, 0, u32::MAX, Patience::Any)
                .unwrap()
                .to_vec();
            assert_eq!(stat.attr.size, bytes.len() as u64, "{name:?}");
            self.vfs.forget(stat.ino, 1);
            (name.into_string().unwrap(), sum(&bytes))
        });
        read.collect()
    }

    fn on_disk(&self) -> BTreeMap<String, Sum> {
        let files = files(self.dir.path()).into_iter();
        files.map(|(name, bytes)| (name, sum(&bytes))).collect()
    }

    /// What is committed is on disk just so, nothing else is, and the counts say the same.
    fn assert_agreement(&self, context: &str) {
        let on_disk = self.on_disk();
        let mut seen = self.seen();
        seen.retain(|name, _| !name.ends_with(".tmp"));
        assert_eq!(seen, on_disk, "{context}");
        assert_eq!(drafts(self.dir.path()), 0, "{context}: a draft is left");
        let stats = self.vfs.stats();
        assert_eq!(stats.disk.files, on_disk.len() as u64, "{context}");
        let blocks = on_disk.values().map(|(len, _)| len.div_ceil(4096) * 4096);
        assert_eq!(stats.disk.bytes, blocks.sum::<usize>() as u64, "{context}");
    }
}

/// Runs `operation` once for each step it takes, with that step failing. `operation` is told to go on after
/// the failure; `check` is given the result, the step that failed and a description.
fn at_every_step(
    durability: Durability,
    prepare: impl Fn(&Core),
    operation: impl Fn(&Core) -> Result<(), Error>,
    check: impl Fn(&Core, Result<(), Error>, Step, &str),
) {
    for errno in [Errno::IO, Errno::NOSPC] {
        for stays in [false, true] {
            let mut failing = 0;
            loop {
                let core = Core::new(durability, Failing::new(errno, stays));
                prepare(&core);
                core.faults.after(failing);
                let result = operation(&core);
                let steps = core.faults.steps.lock().clone();
                core.faults.after(ALL);
                let Some(step) = steps.get(failing) else {
                    assert_eq!(result, Ok(()), "without a failure it works");
                    break;
                };
                let context = format!(
                    "{durability:?}: {errno:?} at step {failing}, {step:?}, stays: {stays}"
                );
                check(&core, result, *step, &context);
                failing += 1;
            }
            assert!(failing > 0, "it takes no step");
        }
    }
}

const BOTH: [Durability; 2] = [Durability::Crash, Durability::Power];

fn temporary_name() -> String {
    format!("{}.abcdefgh.tmp", name("a.html", 1))
}

#[test]
fn a_commit_that_fails_leaves_the_old_entry_and_the_staged_file() {
    let (entry, temporary) = (name("a.html", 1), temporary_name());
    let (old, new) = (content(1, 5_000), content(2, 9_000));
    for durability in BOTH {
        for replaces in [false, true] {
            at_every_step(
                durability,
                |core| {
                    if replaces {
                        core.store(&entry, &old);
                    }
                    core.store(&name("b.html", 1), &old);
                    core.stage(&temporary, &new);
                },
                |core| core.rename(&temporary, &entry),
                |core, result, step, context| {
                    let seen = core.seen();
                    if seen.contains_key(&temporary) {
                        assert!(result.is_err(), "{context}");
                        assert_eq!(seen[&temporary], sum(&new), "{context}");
                        // On a full disk the other entry may have been evicted for it, but not the old one.
                        assert_eq!(
                            seen.get(&entry).copied(),
                            replaces.then(|| sum(&old)),
                            "{context}"
                        );
                    } else {
                        // Either it was tried once more, or only the flush after the rename failed.
                        assert!(
                            result.is_ok() || step == Step::Flush,
                            "{context}: {result:?}"
                        );
                        assert_eq!(seen[&entry], sum(&new), "{context}");
                    }
                    core.assert_agreement(context);
                    if seen.contains_key(&temporary) {
                        assert_eq!(core.rename(&temporary, &entry), Ok(()), "{context}: again");
                    }
                    assert_eq!(core.seen()[&entry], sum(&new), "{context}: again");
                    core.assert_agreement(context);
                },
            );
        }
    }
}

#[test]
fn a_rename_on_disk_that_fails_changes_nothing() {
    let (from, to) = (name("a.html", 1), name("b.html", 1));
    let (moving, replaced) = (content(1, 5_000), content(2, 9_000));
    for durability in BOTH {
        for mode in [RenameMode::Replace, RenameMode::Exchange] {
            at_every_step(
                durability,
                |core| {
                    core.store(&from, &moving);
                    core.store(&to, &replaced);
                },
                |core| {
                    let (from, to) = (OsStr::new(&from), OsStr::new(&to));
                    core.vfs
                        .rename((ROOT, from), (ROOT, to), mode, Patience::Any)
                        .map(drop)
                },
                |core, result, step, context| {
                    let seen = core.seen();
                    if step == Step::Flush || result.is_ok() {
                        assert_eq!(seen[&to], sum(&moving), "{context}");
                    } else {
                        assert_eq!(seen.get(&from).copied(), Some(sum(&moving)), "{context}");
                        assert_eq!(seen.get(&to).copied(), Some(sum(&replaced)), "{context}");
                    }
                    core.assert_agreement(context);
                },
            );
        }
    }
}

#[test]
fn what_was_written_in_place_stays_in_memory_until_it_can_be_persisted() {
    let file = name("a.html", 1);
    let (old, new) = (content(1, 5_000), content(2, 9_000));
    for durability in [Durability::Async, Durability::Crash, Durability::Power] {
        for replaces in [false, true] {
            at_every_step(
                durability,
                |core| {
                    if replaces {
                        core.store(&file, &old);
                        core.vfs.persist_all();
                        let ino = core
                            .vfs
                            .lookup(ROOT, OsStr::new(&file), Patience::Any)
                            .unwrap()
                            .ino;
                        core.vfs.write(ino, 0, &new, false).unwrap();
                        core.vfs.forget(ino, 1);
                    } else {
                        core.stage(&file, &new);
                    }
                },
                |core| match core.vfs.persist_all().failed {
                    0 => Ok(()),
                    _ => Err(Error::Lost),
                },
                |core, result, step, context| {
                    assert_eq!(
                        core.seen().get(&file).copied(),
                        Some(sum(&new)),
                        "{context}"
                    );
                    if result.is_err() && step != Step::Flush {
                        let before = replaces.then(|| sum(&old));
                        let on_disk = core.on_disk().get(&file).copied();
                        // With steps that go on failing the flush may be what failed in the end.
                        let unflushed =
                            durability == Durability::Power && on_disk == Some(sum(&new));
                        assert!(on_disk == before || unflushed, "{context}: {on_disk:?}");
                    }
                    assert_eq!(drafts(core.dir.path()), 0, "{context}");
                    core.clock.advance(Duration::from_secs(2));
                    core.vfs.persist_quiet();
                    assert_eq!(
                        core.on_disk().get(&file).copied(),
                        Some(sum(&new)),
                        "{context}: again"
                    );
                    core.assert_agreement(context);
                },
            );
        }
    }
}

#[test]
fn a_file_that_cannot_be_removed_stays() {
    let file = name("a.html", 1);
    let kept = content(1, 5_000);
    at_every_step(
        Durability::Crash,
        |core| core.store(&file, &kept),
        |core| core.unlink(&file),
        |core, result, step, context| {
            if step == Step::Read && result.is_ok() {
                // Nobody has it open, so that it could not be kept readable is no reason to keep it.
                core.assert_agreement(context);
                return;
            }
            assert!(result.is_err(), "{context}");
            assert_eq!(
                core.seen().get(&file).copied(),
                Some(sum(&kept)),
                "{context}"
            );
            core.assert_agreement(context);
            assert_eq!(core.unlink(&file), Ok(()), "{context}: again");
            core.assert_agreement(context);
        },
    );
}

#[test]
fn a_directory_or_link_that_cannot_be_made_is_not_there() {
    for durability in BOTH {
        at_every_step(
            durability,
            |_| {},
            |core| {
                let made = core.vfs.mkdir(ROOT, OsStr::new("folder"), 0o700, ME);
                made.map(|stat| core.vfs.forget(stat.ino, 1))
            },
            |core, result, _, context| {
                assert!(result.is_err(), "{context}");
                assert_is_missing(core, "folder", context);
                let again = core.vfs.mkdir(ROOT, OsStr::new("folder"), 0o700, ME);
                assert!(again.is_ok(), "{context}: {again:?}");
            },
        );
        at_every_step(
            durability,
            |_| {},
            |core| {
                let target = OsStr::new("anywhere");
                let made = core.vfs.symlink(ROOT, OsStr::new("link"), target, ME);
                made.map(|stat| core.vfs.forget(stat.ino, 1))
            },
            |core, result, _, context| {
                assert!(result.is_err(), "{context}");
                assert_is_missing(core, "link", context);
            },
        );
    }
}

fn assert_is_missing(core: &Core, name: &str, context: &str) {
    let found = core.vfs.lookup(ROOT, OsStr::new(name), Patience::Any);
    assert_eq!(found.unwrap_err().errno(), Errno::NOENT, "{context}");
    let on_disk = core.dir.path().join(name);
    assert!(on_disk.symlink_metadata().is_err(), "{context}: on disk");
}

#[test]
fn an_eviction_that_fails_keeps_the_entry_and_is_made_up_for_by_the_next() {
    let old = name("a.html", 1);
    at_every_step(
        Durability::Crash,
        |core| {
            core.store(&old, &content(1, 5_000));
            core.clock.advance(Duration::from_secs(7200));
            core.store(&name("a.html", 2), &content(2, 5_000));
            core.clock.advance(Duration::from_secs(7200));
        },
        |core| match core.vfs.sweep() {
            1 => Ok(()),
            _ => Err(Error::Lost),
        },
        |core, result, _, context| {
            core.assert_agreement(context);
            assert_eq!(core.seen().contains_key(&old), result.is_err(), "{context}");
        },
    );
}

#[test]
fn an_error_while_reading_is_not_corruption() {
    let file = name("a.html", 1);
    let kept = content(1, 5_000);
    at_every_step(
        Durability::Crash,
        |core| core.store(&file, &kept),
        |core| {
            let stat = core.vfs.lookup(ROOT, OsStr::new(&file), Patience::Any)?;
            let read = core
                .vfs
                .read(stat.ino, 0, u32::MAX, Patience::Any)
                .map(drop);
            core.vfs.forget(stat.ino, 1);
            read
        },
        |core, result, _, context| {
            assert!(result.is_err(), "{context}");
            assert_eq!(
                core.seen().get(&file).copied(),
                Some(sum(&kept)),
                "{context}"
            );
            assert_eq!(core.vfs.stats().quarantined, 0, "{context}");
            core.assert_agreement(context);
        },
    );
}

#[test]
fn a_corrupt_entry_that_cannot_be_set_aside_is_not_served() {
    let file = name("a.html", 1);
    at_every_step(
        Durability::Crash,
        |core| {
            core.store(&file, &content(1, 5_000));
            damage(&core.dir.path().join(&file));
        },
        |core| {
            let stat = core.vfs.lookup(ROOT, OsStr::new(&file), Patience::Any);
            let read = stat.and_then(|stat| core.vfs.read(stat.ino, 0, u32::MAX, Patience::Any));
            assert!(read.is_err(), "damaged content was served");
            match core.vfs.stats().quarantined {
                1 => Ok(()),
                _ => Err(Error::Lost),
            }
        },
        |core, _, _, context| {
            let stat = core.vfs.lookup(ROOT, OsStr::new(&file), Patience::Any);
            let read = stat.and_then(|stat| core.vfs.read(stat.ino, 0, u32::MAX, Patience::Any));
            assert!(read.is_err(), "{context}");
            assert_eq!(core.vfs.stats().quarantined, 1, "{context}");
        },
    );
}

fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[4_000] ^= 1;
    std::fs::write(path, bytes).unwrap();
}
