//! A mount served by the real binary, which a test may stop, kill and question.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kidafs::daemon::mountinfo;
use kidafs::stats::Stats;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

/// The binary, free of this machine's settings.
pub(crate) fn kidafs() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kidafs"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KIDAFS_") {
            command.env_remove(name);
        }
    }
    command
        .env("KIDAFS_CONFIG", "/dev/null")
        // A test that kills the daemon wants to see what is left.
        .env("KIDAFS_SUPERVISE", "false")
        // Most directories of these tests hold what is no entry.
        .env("KIDAFS_ADOPT", "true");
    command
}

/// A number from the environment: the full size of a test that is smaller by default.
pub(crate) fn size(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Waits until `done` says so; for states of the daemon that cannot be waited for.
///
/// # Panics
/// After `limit`, with what was waited for.
pub(crate) fn until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A mount with its daemon. Dropped, the daemon is killed and the mount detached.
#[derive(Debug)]
pub(crate) struct Live {
    dir: PathBuf,
    log: PathBuf,
    pid: Pid,
    process: OwnedFd,
    ended: bool,
    /// What the daemon said before it answered; then the log begins.
    said: String,
}

impl Live {
    /// Serves `dir`, which must not have symbolic links in its path. The log is kept beside it.
    pub(crate) fn start(dir: &Path, options: &[&str]) -> Self {
        match Self::try_start(dir, options) {
            Ok(live) => live,
            Err(said) => panic!("{} is not served: {said}", dir.display()),
        }
    }

    /// The same; the error is what the command said.
    pub(crate) fn try_start(dir: &Path, options: &[&str]) -> Result<Self, String> {
        let log = dir.with_extension("log");
        let output = kidafs()
            .arg("mount")
            .args(options)
            .arg("--log-file")
            .arg(&log)
            .arg(dir)
            .output()
            .unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let pid = fs::read_to_string(dir.join(".kidafs/pid")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        Ok(Self {
            process: rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap(),
            dir: dir.to_owned(),
            log,
            pid,
            ended: false,
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::pidfd_send_signal(&self.process, signal).unwrap();
    }

    /// Asks for a sweep, as `kidafs sweep` does.
    pub(crate) fn ask_to_sweep(&self) {
        self.signal(Signal::USR1);
    }

    pub(crate) fn stats(&self) -> Stats {
        let json = fs::read(self.dir.join(".kidafs/stats.json")).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    /// What the daemon has said and logged.
    pub(crate) fn log(&self) -> String {
        let logged = fs::read_to_string(&self.log).unwrap_or_default();
        format!("{}{logged}", self.said)
    }

    /// Bytes of the daemon's memory that are resident.
    pub(crate) fn resident(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most that were ever resident.
    pub(crate) fn most_resident(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// What each of the daemon's threads waits for in the kernel, for the report of a failure.
    fn threads(&self) -> Vec<String> {
        let tasks = format!("/proc/{}/task", self.pid.as_raw_nonzero());
        let tasks = fs::read_dir(tasks).into_iter().flatten().flatten();
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        tasks
            .map(|task| {
                let name = read(task.path().join("comm"));
                format!("{}: {}", name.trim(), read(task.path().join("wchan")))
            })
            .collect()
    }

    fn status_bytes(&self, key: &str) -> u64 {
        let status = format!("/proc/{}/status", self.pid.as_raw_nonzero());
        let status = fs::read_to_string(status).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// Kills the daemon as it is. The mount stays behind, dead; false if the daemon could not die before
    /// the mount was given up.
    ///
    /// A notice of new content waits for the page that a program is reading at that moment, and cannot be
    /// killed (`fuse_notify_store` in fs/fuse/dev.c).
    pub(crate) fn kill(&mut self) -> bool {
        self.signal(Signal::KILL);
        if self.ends_within(Duration::from_secs(2)) {
            return true;
        }
        let output = kidafs().args(["umount", "--lazy"]).arg(&self.dir).output();
        assert!(output.unwrap().status.success());
        self.wait(Duration::from_secs(10));
        false
    }

    /// Waits for the daemon's end.
    pub(crate) fn wait(&mut self, limit: Duration) {
        assert!(self.ends_within(limit), "still running");
    }

    fn ends_within(&mut self, limit: Duration) -> bool {
        let limit = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap(),
            tv_nsec: 0,
        };
        let mut ended = [PollFd::new(&self.process, PollFlags::IN)];
        self.ended = poll(&mut ended, Some(&limit)).unwrap() == 1;
        self.ended
    }

    /// `kidafs umount`, and the daemon's end.
    pub(crate) fn unmount(mut self) {
        let output = kidafs().arg("umount").arg(&self.dir).output().unwrap();
        assert!(
            output.status.success(),
            "{}{:#?}",
            String::from_utf8_lossy(&output.stderr),
            self.threads()
        );
        self.wait(Duration::from_secs(20));
    }

    /// Detaches the mount, so that the directory beneath is seen.
    pub(crate) fn detach(&self) {
        detach(&self.dir);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if !self.ended {
            let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
            let _ = poll(
                &mut [PollFd::new(&self.process, PollFlags::IN)],
                Some(&Timespec {
                    tv_sec: 10,
                    tv_nsec: 0,
                }),
            );
        }
        self.detach();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(20).collect();
            for line in tail.iter().rev() {
                eprintln!("daemon: {line}");
            }
        }
    }
}

fn detach(dir: &Path) {
    while mountinfo::top(&mountinfo::read().unwrap(), dir).is_some_and(|mount| mount.is_kidafs()) {
        if rustix::mount::unmount(dir, UnmountFlags::DETACH).is_err() {
            let _ = Command::new("fusermount3")
                .args(["-u", "-z"])
                .arg(dir)
                .status();
        }
    }
}

/// A folder whose path has no symbolic links, for a mount point `cache` and what belongs to it.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(folder.path().canonicalize().unwrap(), folder.path());
    folder
}

/// Writes a file as the engine does: a temporary file beside it, then a rename.
pub(crate) fn store(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.{}.tmp", unique()));
    let stored =
        fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, dir.join(name)));
    if stored.is_err() {
        // As the engine: what cannot be removed is not its problem.
        let _ = fs::remove_file(&temporary);
    }
    stored
}

/// Eight letters and digits that no other call in this process has had.
fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{:08x}", NEXT.fetch_add(1, Ordering::Relaxed))
}
