//! A request that waits, for the disk or for a lock that is held over the disk, waits alone.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::daemon::folder;
use crate::support::live::until;
use crate::support::loopfs::{Kind, LoopFs};
use crate::support::mount::{Mount, SOON};
use crate::support::situation::is_root;

/// How long the disk takes in these tests.
const DELAY: Duration = Duration::from_secs(3);

/// What a request that needs nothing of the disk may take at most meanwhile. What is aimed at is 5 milliseconds; the
/// rest is for a machine that is busy with other tests.
const ALONE: Duration = Duration::from_millis(1_000);

/// Has each call of the daemon's that flushes take [`DELAY`], until it is dropped.
struct SlowFlushes(Child);

impl SlowFlushes {
    fn of(mount: &Mount) -> Self {
        let inject = format!("inject=fsync,fdatasync:delay_enter={}", DELAY.as_micros());
        let log = mount.folder().join("strace");
        let tracer = Command::new("strace")
            .args([
                "-f",
                "-qq",
                "-e",
                "trace=fsync,fdatasync",
                "-e",
                &inject,
                "-o",
            ])
            .arg(&log)
            .args(["-p", &mount.pid().to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let status = format!("/proc/{}/status", mount.pid());
        until("the tracer", SOON, || {
            let status = fs::read_to_string(&status).unwrap();
            status.contains(&format!("TracerPid:\t{}\n", tracer.id()))
        });
        // Each thread is attached to by itself.
        std::thread::sleep(Duration::from_millis(200));
        Self(tracer)
    }
}

impl Drop for SlowFlushes {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// The longest of many misses in `dir`, each of another name, until `over`.
fn longest_miss(dir: &Path, over: impl Fn() -> bool) -> Duration {
    let mut longest = Duration::ZERO;
    for number in 0.. {
        let began = Instant::now();
        assert!(!dir.join(format!("missing{number}")).exists());
        longest = longest.max(began.elapsed());
        if over() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    longest
}

fn store(dir: &Path, name: &str) {
    fs::write(dir.join("tmpabcdefgh"), "content").unwrap();
    fs::rename(dir.join("tmpabcdefgh"), dir.join(name)).unwrap();
}

#[test]
fn a_miss_elsewhere_does_not_wait_for_a_flush_nor_for_a_store_that_waits_for_it() {
    let mount = Mount::new(&["--supervise=false", "--threads=1"]);
    let (a, b) = (mount.path("a"), mount.path("b"));
    fs::create_dir(&a).unwrap();
    fs::create_dir(&b).unwrap();
    let _slow = SlowFlushes::of(&mount);
    let done = AtomicBool::new(false);
    let longest = std::thread::scope(|scope| {
        let flush = scope.spawn(|| {
            let journal = File::create(a.join("journal")).unwrap();
            std::io::Write::write_all(&mut &journal, b"line").unwrap();
            let began = Instant::now();
            journal.sync_all().unwrap();
            done.store(true, Ordering::Relaxed);
            began.elapsed()
        });
        let stored = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            store(&a, "entry");
        });
        let longest = longest_miss(&b, || done.load(Ordering::Relaxed));
        assert!(
            flush.join().unwrap() >= DELAY,
            "it did not wait for the disk"
        );
        stored.join().unwrap();
        longest
    });
    eprintln!("the longest miss: {longest:?}");
    assert!(longest < ALONE, "{longest:?}");
}

#[test]
fn with_power_a_miss_does_not_wait_for_what_the_daemon_itself_persists() {
    let mount = Mount::new(&["--supervise=false", "--threads=1", "--durability=power"]);
    let (a, b) = (mount.path("a"), mount.path("b"));
    fs::create_dir(&a).unwrap();
    fs::create_dir(&b).unwrap();
    let _slow = SlowFlushes::of(&mount);
    // Written in place, and persisted after a second of quiet, flushed.
    fs::write(a.join("in-place"), "content").unwrap();
    let began = Instant::now();
    let longest = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(1_800));
            File::create(a.join("tmpabcdefgh")).unwrap();
        });
        longest_miss(&b, || began.elapsed() > Duration::from_secs(5))
    });
    eprintln!("the longest miss: {longest:?}");
    assert!(longest < ALONE, "{longest:?}");
}

/// A filesystem that is frozen until this is dropped.
struct Frozen<'a>(&'a Path);

impl<'a> Frozen<'a> {
    fn new(path: &'a Path) -> Self {
        let frozen = Command::new("fsfreeze").arg("--freeze").arg(path).status();
        assert!(frozen.unwrap().success());
        Self(path)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze")
            .arg("--unfreeze")
            .arg(self.0)
            .status();
    }
}

#[test]
fn on_a_frozen_filesystem_only_what_needs_the_disk_waits() {
    if !is_root() {
        return;
    }
    let place = folder();
    let disk = LoopFs::make(place.path(), Kind::Ext4, Kind::Ext4.least_size());
    let backing = disk.directory("cache");
    let dir = place.path().join("mount");
    fs::create_dir(&dir).unwrap();
    let mount = Mount::over(&dir, Some(&backing), &["--supervise=false", "--threads=1"]);
    let (a, b) = (mount.path("a"), mount.path("b"));
    fs::create_dir(&a).unwrap();
    fs::create_dir(&b).unwrap();
    store(&b, "hot");
    assert_eq!(fs::read(b.join("hot")).unwrap(), b"content");
    let stored = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let frozen = Frozen::new(disk.path());
        let writers: Vec<_> = ["one", "two"]
            .into_iter()
            .map(|name| {
                let (a, stored) = (&a, &stored);
                scope.spawn(move || {
                    let temporary = a.join(format!("{name}.aaaaaaaa.tmp"));
                    fs::write(&temporary, "content").unwrap();
                    fs::rename(temporary, a.join(name)).unwrap();
                    stored.store(true, Ordering::Relaxed);
                })
            })
            .collect();
        let began = Instant::now();
        let longest = longest_miss(&b, || began.elapsed() > DELAY);
        let hit = Instant::now();
        assert_eq!(fs::read(b.join("hot")).unwrap(), b"content");
        let hit = hit.elapsed();
        assert!(
            !stored.load(Ordering::Relaxed),
            "nothing waited for the disk"
        );
        drop(frozen);
        for writer in writers {
            writer.join().unwrap();
        }
        eprintln!("the longest miss: {longest:?}, a hit: {hit:?}");
        assert!(longest < ALONE && hit < ALONE, "{longest:?} {hit:?}");
    });
    assert!(a.join("one").exists() && a.join("two").exists());
}
