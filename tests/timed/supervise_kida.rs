//! A supervised daemon under the real engine: killed again and again, and the engine goes on.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use crate::alone;
use crate::support::daemon::{folder, is_mount_root};
use crate::support::python::python;
use assert_cmd::cargo::cargo_bin;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

/// How often the daemon is killed, and how soon its mount must be back.
const KILLS: usize = 20;
const BACK_WITHIN: Duration = Duration::from_millis(300);

/// `kidafs mount --supervise`, in the background.
struct Supervised {
    dir: PathBuf,
    log: PathBuf,
    supervisor: OwnedFd,
}

impl Supervised {
    fn mount(dir: PathBuf, log: PathBuf) -> Self {
        let status = Command::new(cargo_bin("kidafs"))
            .args(["mount", "--supervise", "--log-file"])
            .arg(&log)
            .arg(&dir)
            .env("KIDAFS_CONFIG", "/dev/null")
            .status()
            .unwrap();
        assert!(status.success());
        let supervisor = parent_of(daemon_of(&dir).unwrap());
        let supervisor = rustix::process::pidfd_open(supervisor, PidfdFlags::empty()).unwrap();
        Self {
            dir,
            log,
            supervisor,
        }
    }

    /// Unmounts, after which both processes end.
    fn umount(&self) {
        let status = Command::new(cargo_bin("kidafs"))
            .arg("umount")
            .arg(&self.dir)
            .status()
            .unwrap();
        assert!(status.success());
        assert!(!is_mount_root(&self.dir));
        let mut end = [PollFd::new(&self.supervisor, PollFlags::IN)];
        let ended = rustix::event::poll(&mut end, Some(&limit(SOON))).unwrap();
        assert_eq!(ended, 1, "the supervisor has not ended");
        assert!(!is_mount_root(&self.dir));
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

fn limit(time: Duration) -> Timespec {
    Timespec::try_from(time).unwrap()
}

fn parent_of(pid: Pid) -> Pid {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    Pid::from_raw(parent.unwrap().trim().parse().unwrap()).unwrap()
}

/// One of the clients in `tests/python`.
fn client(script: &str, dir: &Path, report: &Path) -> Command {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let mut command = Command::new(python());
    command
        .args(["-B", "-s"])
        .env_remove("PYTHONPATH")
        .arg(folder.join(script))
        .arg(dir)
        .arg("--report")
        .arg(report)
        .stdout(Stdio::null());
    command
}

struct Report(Value);

impl Report {
    fn read(path: &Path) -> Self {
        Self(serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
    }

    fn count(&self, what: &str) -> u64 {
        self.0[what].as_u64().unwrap()
    }

    fn texts(&self, what: &str) -> BTreeMap<String, String> {
        serde_json::from_value(self.0[what].clone()).unwrap()
    }
}

/// The engine renders every template once, in a process of its own.
fn render_once(dir: &Path, report: &Path) -> Report {
    let status = client("render_kida.py", dir, report).status().unwrap();
    let report = Report::read(report);
    assert!(status.success(), "{:?}", report.texts("errors"));
    report
}

/// The engine renders every template again and again.
struct Load {
    process: Child,
    rounds: Lines<BufReader<ChildStderr>>,
    report: PathBuf,
}

impl Load {
    fn start(dir: &Path, report: PathBuf) -> Self {
        let mut process = client("load_kida.py", dir, &report)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let rounds = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut load = Self {
            process,
            rounds,
            report,
        };
        load.await_round();
        load
    }

    /// Returns after a round's end.
    fn await_round(&mut self) {
        let line = self.rounds.next().expect("it ended").unwrap();
        assert!(line.starts_with("round "), "{line}");
    }

    fn end(mut self) -> Report {
        drop(self.process.stdin.take());
        let said: Vec<_> = self.rounds.map(Result::unwrap).collect();
        let status = self.process.wait().unwrap();
        let report = Report::read(&self.report);
        assert!(status.success(), "{:?} {said:?}", report.texts("errors"));
        report
    }
}

/// The daemon's process id, as its mount tells it; `None` if no daemon is there.
fn daemon_of(dir: &Path) -> Option<Pid> {
    let text = fs::read_to_string(dir.join(".kidafs/pid")).ok()?;
    Pid::from_raw(text.trim().parse().unwrap())
}

/// Asks again whenever something was mounted or unmounted.
fn wait_until<T>(found: impl Fn() -> Option<T>) -> T {
    let table = File::open("/proc/self/mountinfo").unwrap();
    let end = Instant::now() + SOON;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "it does not come about");
        let mut changes = [PollFd::new(&table, PollFlags::PRI)];
        let second = limit(Duration::from_secs(1));
        rustix::event::poll(&mut changes, Some(&second)).unwrap();
    }
}

/// Kills the daemon of `dir` and returns how long it takes until the next one answers.
fn kill(dir: &Path) -> Duration {
    let daemon = daemon_of(dir).unwrap();
    let begun = Instant::now();
    rustix::process::kill_process(daemon, Signal::KILL).unwrap();
    wait_until(|| daemon_of(dir).filter(|pid| *pid != daemon));
    begun.elapsed()
}

fn temporary_files(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|it| it == "tmp"))
        .collect()
}

/// Writes an entry as the engines do.
fn store(dir: &Path, name: &str, content: &str) {
    let temporary = dir.join(format!("{name}.abcdefgh.tmp"));
    fs::write(&temporary, content).unwrap();
    fs::rename(&temporary, dir.join(name)).unwrap();
}

#[test]
fn under_a_load_of_kida_twenty_kills_do_no_harm() {
    let _alone = alone();
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let reference = render_once(&at("plain"), &at("plain.json"));
    let (templates, digests) = (reference.count("templates"), reference.texts("digests"));
    let supervised = Supervised::mount(at("cache"), at("log"));
    let dir = &supervised.dir;

    let mut loads = ["first.json", "second.json"].map(|report| Load::start(dir, at(report)));
    let mut times = Vec::new();
    for kills in 0..KILLS {
        times.push(kill(dir));
        // Half of the kills come when the engine is about to store again what it lost.
        if kills % 2 == 0 {
            loads.iter_mut().for_each(Load::await_round);
        }
    }
    let mut hits = 0;
    for load in loads {
        let report = load.end();
        assert_eq!(report.texts("digests"), digests);
        let rounds = report.count("processes");
        assert!(rounds > 1);
        assert_eq!(
            report.count("hits") + report.count("misses"),
            rounds * templates
        );
        hits += report.count("hits");
    }
    assert!(hits > 0);

    times.sort();
    let median = times[KILLS / 2];
    println!(
        "the mount was back after {median:?} (median), {:?} at most",
        times[KILLS - 1]
    );
    assert!(median < BACK_WITHIN, "{times:?}");

    // What was lost in between is stored again, and then all of it is there: mounted and plain.
    render_once(dir, &at("again.json"));
    assert_eq!(
        render_once(dir, &at("mounted.json")).count("hits"),
        templates
    );
    supervised.umount();
    let plain = render_once(dir, &at("unmounted.json"));
    assert_eq!(plain.count("hits"), templates);
    assert_eq!(plain.texts("digests"), digests);
    assert_eq!(temporary_files(dir), Vec::<PathBuf>::new());
    let log = supervised.log();
    assert_eq!(log.matches("SIGKILL").count(), KILLS, "{log}");
    assert_eq!(log.matches("is served again").count(), KILLS, "{log}");
}

#[test]
fn what_the_engine_wrote_to_the_plain_directory_in_between_is_adopted() {
    let _alone = alone();
    let folder = folder();
    let dir = folder.path().join("cache");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).unwrap();
    let beneath = File::open(&dir).unwrap();
    let supervised = Supervised::mount(dir.clone(), folder.path().join("log"));
    let daemon = daemon_of(&dir).unwrap();
    store(&dir, "before.cache", "committed on the mount");

    // A directory that everybody can write is not served, so that the engine has all the time it needs.
    let set_mode = |mode| beneath.set_permissions(PermissionsExt::from_mode(mode));
    set_mode(0o702).unwrap();
    rustix::process::kill_process(daemon, Signal::KILL).unwrap();
    wait_until(|| (!is_mount_root(&dir)).then_some(()));
    let read = |name| fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(read("before.cache"), "committed on the mount");
    store(&dir, "between.cache", "committed to the plain directory");
    fs::write(dir.join("unfinished.cache.abcdefgh.tmp"), "half a ").unwrap();
    set_mode(0o700).unwrap();

    wait_until(|| daemon_of(&dir));
    assert_eq!(read("before.cache"), "committed on the mount");
    assert_eq!(read("between.cache"), "committed to the plain directory");
    // The engine has the rest to write, and the name to give.
    let mut temporary = File::options()
        .append(true)
        .open(dir.join("unfinished.cache.abcdefgh.tmp"))
        .unwrap();
    temporary.write_all(b"content").unwrap();
    drop(temporary);
    fs::rename(
        dir.join("unfinished.cache.abcdefgh.tmp"),
        dir.join("unfinished.cache"),
    )
    .unwrap();
    assert_eq!(read("unfinished.cache"), "half a content");
    supervised.umount();
    assert_eq!(read("between.cache"), "committed to the plain directory");
    assert_eq!(read("unfinished.cache"), "half a content");
}
