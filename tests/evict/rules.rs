//! The rules of eviction that depend on time and on use, on the core with a clock that is set.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::support::entries::{content, name};
use crate::support::loopfs::{Kind, LoopFs};
use kidafs::clock::ManualClock;
use kidafs::config::{Config, KeepFree};
use kidafs::evict::Reason;
use kidafs::tier::Patience;
use kidafs::vfs::{About, Caller, Notices, ROOT, RenameMode, Vfs};
use rustix::io::Errno;

const ME: Caller = Caller { uid: 0, gid: 0 };
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Core {
    clock: Arc<ManualClock>,
    vfs: Vfs,
}

impl Core {
    fn open(dir: &Path, clock: &Arc<ManualClock>, config: Config) -> Self {
        let root = fs::File::open(dir).unwrap().into();
        let own = Arc::clone(clock);
        let vfs = Vfs::open(root, config, own, Notices::none(), About::default(), None);
        Self {
            clock: Arc::clone(clock),
            vfs: vfs.unwrap(),
        }
    }

    fn stage(&self, name: &str, content: &[u8]) -> u64 {
        let made = self.vfs.create(ROOT, OsStr::new(name), 0o600, ME, true);
        let ino = made.unwrap().ino;
        self.vfs.write(ino, 0, content, false).unwrap();
        self.vfs.forget(ino, 1);
        ino
    }

    fn store(&self, name: &str) {
        let temporary = format!("{name}.abcdefgh.tmp");
        self.stage(&temporary, &content(1, 5_000));
        let (from, to) = (OsStr::new(&temporary), OsStr::new(name));
        let renamed = self
            .vfs
            .rename((ROOT, from), (ROOT, to), RenameMode::Replace, Patience::Any);
        renamed.unwrap();
    }

    /// Uses an entry, as an engine that finds it.
    fn look_up(&self, name: &str) -> bool {
        match self.vfs.lookup(ROOT, OsStr::new(name), Patience::Any) {
            Ok(stat) => {
                self.vfs.forget(stat.ino, 1);
                true
            }
            Err(error) => {
                assert_eq!(error.errno(), Errno::NOENT);
                false
            }
        }
    }

    /// Sweeps, after a check that the plan says so beforehand; returns what went, and why.
    fn sweep(&self) -> BTreeSet<(String, Reason)> {
        let planned = self.vfs.plan().into_iter();
        let planned: BTreeSet<_> = planned
            .map(|(path, victim)| (path, victim.reason))
            .collect();
        let before = self.vfs.stats().evictions;
        assert_eq!(self.vfs.sweep(), planned.len());
        let after = self.vfs.stats().evictions;
        for reason in Reason::ALL {
            let count = planned.iter().filter(|(_, why)| *why == reason).count() as u64;
            let counted =
                |map: &std::collections::BTreeMap<_, u64>| map.get(&reason).copied().unwrap_or(0);
            assert_eq!(counted(&after) - counted(&before), count, "{reason}");
        }
        for (path, _) in &planned {
            assert!(!self.look_up(path), "{path} is still there");
        }
        planned
    }
}

fn clock() -> Arc<ManualClock> {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    Arc::new(ManualClock::new(start))
}

fn fresh(config: Config) -> (tempfile::TempDir, Core) {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::open(dir.path(), &clock(), config);
    (dir, core)
}

fn one(name: &str, reason: Reason) -> BTreeSet<(String, Reason)> {
    BTreeSet::from([(name.to_owned(), reason)])
}

#[test]
fn a_staged_file_whose_writer_died_goes_after_stale_temp() {
    let (dir, core) = fresh(Config::default());
    let staged = format!("{}.abcdefgh.tmp", name("a.html", 1));
    core.stage(&staged, b"half");
    core.clock.advance(HOUR - Duration::from_secs(1));
    assert!(core.sweep().is_empty());
    core.clock.advance(Duration::from_secs(1));
    assert_eq!(core.sweep(), one(&staged, Reason::StaleTemp));
    assert_eq!(core.vfs.stats().staging.bytes, 0);
    assert!(crate::support::entries::names(dir.path()).is_empty());
}

#[test]
fn a_staged_file_that_is_being_written_stays() {
    let (_dir, core) = fresh(Config::default());
    let staged = format!("{}.abcdefgh.tmp", name("a.html", 1));
    let ino = core.stage(&staged, b"half");
    for written in 0..5 {
        core.clock.advance(HOUR - Duration::from_secs(1));
        core.vfs.write(ino, 4 + written, b"x", false).unwrap();
        assert!(core.sweep().is_empty());
    }
}

#[test]
fn what_is_neither_committed_nor_looked_up_for_max_age_goes() {
    let (dir, core) = fresh(Config::default());
    let (idle, used, other) = (
        name("idle.html", 1),
        name("used.html", 1),
        "tmplq_x1.txt".to_owned(),
    );
    for name in [&idle, &used, &other] {
        core.store(name);
    }
    core.clock.advance(29 * DAY);
    assert!(core.look_up(&used));
    core.clock.advance(DAY);
    let gone = core.sweep();
    assert_eq!(gone, one(&idle, Reason::Expired));
    // What is no entry stays for good.
    assert_eq!(crate::support::entries::names(dir.path()), [used, other]);
}

#[test]
fn an_old_source_goes_after_the_grace_and_one_in_use_stays() {
    let (_dir, core) = fresh(Config::default());
    let (old, used, new) = (name("a.html", 1), name("b.html", 1), name("a.html", 2));
    core.store(&old);
    core.store(&used);
    core.clock.advance(10 * HOUR);
    core.store(&new);
    core.store(&name("b.html", 2));
    // The grace counts from the newer source's commit, however old the older one is.
    core.clock.advance(HOUR - Duration::from_secs(1));
    assert!(core.sweep().is_empty());
    assert!(core.look_up(&used));
    core.clock.advance(Duration::from_secs(1));
    assert_eq!(core.sweep(), one(&old, Reason::Superseded));
    assert!(core.look_up(&new) && core.look_up(&used));
    core.clock.advance(HOUR);
    assert_eq!(core.sweep(), one(&used, Reason::Superseded));
}

#[test]
fn two_template_roots_that_share_a_cache_keep_both_their_sources() {
    let (_dir, core) = fresh(Config::default());
    let (first, second) = (name("page.html", 1), name("page.html", 2));
    core.store(&first);
    core.clock.advance(Duration::from_secs(60));
    core.store(&second);
    for _ in 0..200 {
        core.clock.advance(HOUR / 2);
        assert!(core.look_up(&first) && core.look_up(&second));
        assert!(core.sweep().is_empty());
    }
}

#[test]
fn entries_of_a_version_that_nobody_uses_go_while_another_is_in_use() {
    let (_dir, core) = fresh(Config::default());
    let foreign = "__kida_py313_a.html_0000000000000001.pyc".to_owned();
    let own = name("a.html", 1);
    core.store(&foreign);
    core.store(&own);
    core.clock.advance(7 * DAY - HOUR);
    assert!(core.look_up(&own));
    assert!(core.sweep().is_empty());
    core.clock.advance(HOUR);
    assert_eq!(core.sweep(), one(&foreign, Reason::ForeignVersion));
    // When no version is in use, none is foreign.
    core.clock.advance(8 * DAY);
    assert!(core.sweep().is_empty());
}

#[test]
fn a_rule_that_is_off_evicts_nothing() {
    let (_dir, core) = fresh(Config {
        max_age: None,
        superseded_grace: None,
        foreign_age: None,
        stale_temp: None,
        ..Config::default()
    });
    core.store(&name("a.html", 1));
    core.store(&name("a.html", 2));
    core.store("__kida_py313_a.html_0000000000000001.pyc");
    core.stage(&format!("{}.abcdefgh.tmp", name("a.html", 3)), b"half");
    core.clock.advance(1_000 * DAY);
    core.store(&name("a.html", 4));
    assert!(core.sweep().is_empty());
}

#[test]
fn the_last_use_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let (idle, used) = (name("idle.html", 1), name("used.html", 1));
    {
        let core = Core::open(dir.path(), &clock, Config::default());
        core.store(&idle);
        core.store(&used);
        clock.advance(20 * DAY);
        assert!(core.look_up(&used));
        // As the daemon does when it ends.
        core.vfs.note_use(Duration::ZERO);
    }
    clock.advance(15 * DAY);
    let core = Core::open(dir.path(), &clock, Config::default());
    assert_eq!(core.sweep(), one(&idle, Reason::Expired));
    assert!(core.look_up(&used));
}

#[test]
fn the_last_use_is_noted_by_sweeps_for_a_daemon_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let used = name("used.html", 1);
    {
        let core = Core::open(dir.path(), &clock, Config::default());
        core.store(&used);
        clock.advance(20 * DAY);
        assert!(core.look_up(&used));
        assert!(core.sweep().is_empty());
    }
    clock.advance(15 * DAY);
    let core = Core::open(dir.path(), &clock, Config::default());
    assert!(core.sweep().is_empty());
}

#[test]
fn when_the_budget_is_crossed_the_least_recently_used_go_first() {
    let (_dir, core) = fresh(Config {
        max_entries: 100,
        ..Config::default()
    });
    let name = |number: u64| name(&format!("t{number}.html"), 1);
    for number in 0..100 {
        core.store(&name(number));
        core.clock.advance(Duration::from_secs(1));
    }
    for number in 0..10 {
        assert!(core.look_up(&name(number)));
    }
    core.clock.advance(Duration::from_secs(1));
    core.store(&name(100));
    assert!(core.vfs.stats().disk.files <= 100);
    // One has left for one that came; the rest is the sweeper's, which was asked.
    core.vfs.sweep();
    let stats = core.vfs.stats();
    let gone = stats.evictions[&Reason::Budget];
    // Down to nine tenths, so that the next commit does not evict again.
    assert!((10..=12).contains(&gone), "{gone} evicted");
    for number in 0..=100 {
        let expected = number < 10 || number >= 10 + gone;
        assert_eq!(core.look_up(&name(number)), expected, "{number}");
    }
}

#[test]
fn when_the_disk_runs_short_the_least_recently_used_go_until_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let fs = LoopFs::make(folder.path(), Kind::Tmpfs, 16 << 20);
    let backing = fs.directory("backing");
    let clock = clock();
    let core = Core::open(
        &backing,
        &clock,
        Config {
            keep_free: KeepFree::Percent(25.0),
            ..Config::default()
        },
    );
    let name = |number: u64| name(&format!("t{number}.html"), 1);
    for number in 0..200 {
        core.store(&name(number));
        clock.advance(Duration::from_secs(1));
    }
    assert!(core.sweep().is_empty());
    // Somebody else takes 11 of 16 MiB.
    fs::write(fs.path().join("other"), vec![7; 11 << 20]).unwrap();
    let gone = core.sweep();
    assert!(!gone.is_empty() && gone.iter().all(|(_, reason)| *reason == Reason::Pressure));
    let space = rustix::fs::statvfs(&backing).unwrap();
    assert!(space.f_bavail * space.f_frsize >= 4 << 20);
    let oldest: BTreeSet<_> = (0..gone.len() as u64)
        .map(|number| (name(number), Reason::Pressure))
        .collect();
    assert_eq!(gone, oldest);
    assert!(core.sweep().is_empty(), "once is enough");
}
