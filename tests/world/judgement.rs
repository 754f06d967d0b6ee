//! Its judgement of time, use and space is sound.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kidafs::clock::ManualClock;
use kidafs::config::Config;
use kidafs::evict::Reason;
use kidafs::tier::Patience;
use kidafs::vfs::{About, Caller, Notices, ROOT, RenameMode, Vfs};

use crate::support::entries::{content, name, names};
use crate::support::live::{Live, folder, kidafs, store, until};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn fill(dir: &Path, count: u64, then: SystemTime) {
    fs::create_dir_all(dir).unwrap();
    for number in 0..count {
        let path = dir.join(name(&format!("t{number}.html"), number));
        fs::write(&path, content(number, 700)).unwrap();
        let times = fs::FileTimes::new().set_accessed(then).set_modified(then);
        let file = File::options().append(true).open(path).unwrap();
        file.set_times(times).unwrap();
    }
}

fn sweep(live: &Live) {
    let sweeps = live.stats().sweeps;
    live.ask_to_sweep();
    until("a sweep", Duration::from_secs(30), || {
        let stats = live.stats();
        stats.sweeps > sweeps && !stats.sweeping
    });
}

#[test]
fn a_cache_that_was_shipped_is_as_young_as_its_first_mount() {
    let folder = folder();
    let dir = folder.path().join("cache");
    fill(&dir, 10, SystemTime::UNIX_EPOCH + 10 * YEAR);
    for _ in 0..2 {
        let live = Live::start(&dir, &["--sweep-interval=1h"]);
        sweep(&live);
        assert!(live.stats().evictions.is_empty());
        assert_eq!(names(&dir).len(), 10);
        live.unmount();
    }
}

#[test]
fn files_of_times_to_come_leave_as_any_other() {
    let folder = folder();
    let dir = folder.path().join("cache");
    fill(&dir, 10, SystemTime::now() + 70 * YEAR);
    let live = Live::start(&dir, &["--max-entries=10"]);
    for number in 100..130 {
        store(&dir, &name("new.html", number), &content(number, 700)).unwrap();
    }
    assert!(dir.join(name("new.html", 129)).exists());
    live.unmount();
}

/// The core on a clock that is set.
struct Core {
    clock: Arc<ManualClock>,
    vfs: Vfs,
    _dir: tempfile::TempDir,
}

impl Core {
    fn new(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + 50 * YEAR));
        let root: std::os::fd::OwnedFd = File::open(dir.path()).unwrap().into();
        let own = Arc::clone(&clock);
        let vfs = Vfs::open(root, config, own, Notices::none(), About::default(), None);
        Self {
            clock,
            vfs: vfs.unwrap(),
            _dir: dir,
        }
    }

    fn store(&self, name: &str) {
        let temporary = format!("{name}.abcdefgh.tmp");
        let me = Caller { uid: 0, gid: 0 };
        let made = self
            .vfs
            .create(ROOT, OsStr::new(&temporary), 0o600, me, true);
        let ino = made.unwrap().ino;
        self.vfs.write(ino, 0, &content(1, 5_000), false).unwrap();
        self.vfs.forget(ino, 1);
        let (from, to) = (OsStr::new(&temporary), OsStr::new(name));
        let renamed = self
            .vfs
            .rename((ROOT, from), (ROOT, to), RenameMode::Replace, Patience::Any);
        renamed.unwrap();
    }

    fn look_up(&self, task: u32, name: &str) -> bool {
        match self
            .vfs
            .lookup_by(task, ROOT, OsStr::new(name), Patience::Any)
        {
            Ok(stat) => {
                self.vfs.forget(stat.ino, 1);
                true
            }
            Err(_) => false,
        }
    }
}

#[test]
fn however_the_clock_is_set_the_oldest_leave_first_and_each_store_succeeds() {
    let core = Core::new(Config {
        max_entries: 20,
        ..Config::default()
    });
    let name = |number: u64| name(&format!("t{number}.html"), 1);
    let start = SystemTime::UNIX_EPOCH + 50 * YEAR;
    let steps = [
        start,
        start - HOUR,
        start - 20 * YEAR,
        start + Duration::from_secs(1),
        start + 40 * YEAR,
        start - 2 * HOUR,
    ];
    let mut number = 0;
    for step in steps {
        core.clock.set(step);
        for _ in 0..12 {
            core.store(&name(number));
            core.clock.advance(Duration::from_secs(1));
            core.vfs.sweep();
            number += 1;
            let there: Vec<u64> = (0..number)
                .filter(|n| {
                    core.vfs
                        .lookup(ROOT, OsStr::new(&name(*n)), Patience::Any)
                        .is_ok()
                })
                .collect();
            let youngest: Vec<u64> = (number - there.len() as u64..number).collect();
            assert_eq!(there, youngest, "the youngest are there, and no others");
            assert!(there.len() >= 17.min(number as usize), "{there:?}");
        }
    }
    let evictions = core.vfs.stats().evictions;
    assert_eq!(evictions.keys().collect::<Vec<_>>(), [&Reason::Budget]);
}

#[test]
fn a_year_that_the_clock_jumps_makes_nothing_old_and_one_that_passes_does() {
    let core = Core::new(Config::default());
    let entry = name("a.html", 1);
    core.store(&entry);
    core.clock.set(SystemTime::UNIX_EPOCH + 90 * YEAR);
    core.vfs.sweep();
    core.clock.set(SystemTime::UNIX_EPOCH + 10 * YEAR);
    core.vfs.sweep();
    assert!(core.vfs.stats().evictions.is_empty());
    core.clock.advance(30 * DAY);
    core.vfs.sweep();
    assert_eq!(core.vfs.stats().evictions[&Reason::Expired], 1);
}

#[test]
fn what_waits_to_be_written_does_not_wait_longer_when_the_clock_is_set_back() {
    let core = Core::new(Config::default());
    let me = Caller { uid: 0, gid: 0 };
    let made = core
        .vfs
        .create(ROOT, OsStr::new("in-place"), 0o600, me, true);
    core.vfs
        .write(made.unwrap().ino, 0, b"content", false)
        .unwrap();
    core.clock.set(SystemTime::UNIX_EPOCH + YEAR);
    core.clock.advance(Duration::from_secs(2));
    core.vfs.persist_quiet();
    assert_eq!(core.vfs.stats().staging.files, 0);
}

#[test]
fn who_lists_a_directory_and_looks_at_every_name_does_not_use_the_entries() {
    let core = Core::new(Config::default());
    let (idle, used) = (name("idle.html", 1), name("used.html", 1));
    core.store(&idle);
    core.store(&used);
    for _ in 0..31 {
        core.clock.advance(DAY);
        let backup = 7;
        core.vfs
            .read_dir_by(backup, ROOT, 0, false, |_| true)
            .unwrap();
        assert!(core.look_up(backup, &used));
        // The application is another process, whatever was listed in between.
        assert!(core.look_up(8, &used));
        if !core.look_up(backup, &idle) {
            break;
        }
        core.vfs.sweep();
    }
    assert!(!core.look_up(9, &idle) && core.look_up(9, &used));
}

#[test]
fn far_above_its_limit_a_mount_refuses_no_store() {
    let folder = folder();
    let dir = folder.path().join("cache");
    fill(&dir, 6_000, SystemTime::now());
    let live = Live::start(&dir, &["--max-entries=1000"]);
    for number in 0..200 {
        store(&dir, &name("new.html", number), &content(number, 700)).unwrap();
    }
    until("it is within its limit", Duration::from_secs(60), || {
        live.stats().disk.files <= 1000
    });
    assert!(dir.join(name("new.html", 199)).exists());
    live.unmount();
}

#[test]
fn nothing_is_evicted_for_free_space_that_evicting_cannot_make_and_one_line_says_so() {
    let folder = folder();
    let dir = folder.path().join("cache");
    fill(&dir, 20, SystemTime::now());
    let live = Live::start(&dir, &["--keep-free=99.9%", "--sweep-interval=100ms"]);
    let swept = live.stats().sweeps;
    until("sweeps", Duration::from_secs(30), || {
        live.stats().sweeps > swept + 3
    });
    let stats = live.stats();
    assert!(stats.evictions.is_empty() && stats.free_space_out_of_reach);
    assert_eq!(names(&dir).len(), 20);
    assert_eq!(live.log().matches("less free than --keep-free").count(), 1);
    live.unmount();
}

#[test]
fn what_dead_writers_have_left_on_disk_goes_as_stale_temp() {
    let folder = folder();
    let dir = folder.path().join("cache");
    fs::create_dir(&dir).unwrap();
    let left = [
        format!("{}.q1w2e3r4.tmp", name("a.html", 1)),
        "__jinja2_0123456789abcdef0123456789abcdef01234567.cacheq1w2e3r4.tmp".to_owned(),
        "mod.cpython-314.pyc.140243719287216".to_owned(),
        "tmpq1w2e3r4".to_owned(),
    ];
    for name in &left {
        fs::write(dir.join(name), b"").unwrap();
    }
    fs::write(dir.join("tmpmine0000"), b"somebody's data").unwrap();
    fs::write(dir.join("download.tmp"), b"half").unwrap();
    fs::write(dir.join(name("a.html", 1)), content(1, 700)).unwrap();
    let live = Live::start(&dir, &["--stale-temp=200ms", "--sweep-interval=100ms"]);
    until("they are gone", Duration::from_secs(30), || {
        live.stats().evictions.get(&Reason::StaleTemp) == Some(&(left.len() as u64))
    });
    let mut here = names(&dir);
    here.sort();
    assert_eq!(
        here,
        [
            name("a.html", 1),
            "download.tmp".into(),
            "tmpmine0000".into()
        ]
    );
    live.unmount();
}

#[test]
fn directories_that_eviction_has_emptied_leave_too() {
    let folder = folder();
    let dir = folder.path().join("cache");
    fs::create_dir_all(dir.join("kept/empty")).unwrap();
    for number in 0..60 {
        let nested = dir.join(format!("tmp/build-{number}/lib"));
        fs::create_dir_all(&nested).unwrap();
        fs::write(nested.join(name("a.html", number)), content(number, 700)).unwrap();
    }
    let live = Live::start(&dir, &["--max-entries=5", "--adopt"]);
    until("it is within its limit", Duration::from_secs(30), || {
        let stats = live.stats();
        stats.disk.files <= 5 && !stats.sweeping
    });
    assert!(fs::read_dir(dir.join("tmp")).unwrap().count() <= 5);
    assert!(
        dir.join("kept/empty").is_dir(),
        "nobody evicted anything there"
    );
    live.unmount();
}

#[test]
fn under_a_clock_that_jumps_a_daemon_stores_evicts_and_ends_as_ever() {
    let library = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    ]
    .into_iter()
    .find(|path| Path::new(path).exists())
    .expect("the package libfaketime is needed for this test");
    let folder = folder();
    let dir = folder.path().join("cache");
    let clock = folder.path().join("clock");
    fs::write(&clock, "+0").unwrap();
    let mut daemon = kidafs()
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("DONT_FAKE_MONOTONIC", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .args([
            "mount",
            "--foreground",
            "--max-entries=20",
            "--sweep-interval=200ms",
        ])
        .arg(&dir)
        .spawn()
        .unwrap();
    until("it is mounted", Duration::from_secs(30), || {
        dir.join(".kidafs/pid").exists()
    });
    let mut number = 0;
    for step in ["+0", "-3600", "-7200", "+315360000", "-315360000", "+60"] {
        fs::write(&clock, step).unwrap();
        for _ in 0..10 {
            store(&dir, &name("t.html", number), &content(number, 700)).unwrap();
            number += 1;
        }
        assert!(
            dir.join(name("t.html", number - 1)).exists(),
            "after {step}"
        );
    }
    assert!(!dir.join(name("t.html", 0)).exists());
    let ended = kidafs().arg("umount").arg(&dir).status().unwrap();
    let status = daemon.wait().unwrap();
    assert!(ended.success() && status.success(), "{status}");
}
