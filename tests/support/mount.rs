//! A real mount: the binary itself, on a directory of its own, ended and removed on drop.
//!
//! Needs `support::daemon` beside it, whose [`Folder`] detaches what a failed test left mounted.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use kidafs::stats::Stats;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::daemon::{Folder, folder};

/// Within which whatever is awaited happens, on the slowest of machines.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The binary, without any option from this machine's files or this process's variables.
pub(crate) fn kidafs() -> Command {
    // In a situation of `support::situation` both programs are copies.
    let beside = std::env::current_exe().unwrap().with_file_name("kidafs");
    let mut command = match beside.exists() {
        true => Command::new(beside),
        false => Command::new(env!("CARGO_BIN_EXE_kidafs")),
    };
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KIDAFS_") {
            command.env_remove(name);
        }
    }
    command
        .env("KIDAFS_CONFIG", "/dev/null")
        // A test that kills the daemon wants to see what is left; those of the supervisor say so.
        .env("KIDAFS_SUPERVISE", "false")
        // Most directories of these tests hold what is no entry.
        .env("KIDAFS_ADOPT", "true");
    command
}

/// The standard output of a command that must succeed.
pub(crate) fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a command said on both of its outputs.
pub(crate) fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    format!("{}\n{out}{err}", output.status)
}

/// A daemon that serves a directory. Dropped, the daemon is ended, the mount detached and the
/// temporary folder removed, after a panic as well.
#[derive(Debug)]
pub(crate) struct Mount {
    // Fields are dropped in this order: the daemon has ended before its folder is removed.
    daemon: Daemon,
    dir: PathBuf,
    backing: Option<PathBuf>,
    beneath: OwnedFd,
    folder: Folder,
}

impl Mount {
    /// Mounts over an empty directory in a temporary folder; `options` are those of `kidafs mount`.
    pub(crate) fn new(options: &[&str]) -> Self {
        Self::prepared(options, |_| {})
    }

    /// The same, with an empty directory beside it as the backing directory (`--backing`).
    pub(crate) fn backed(options: &[&str]) -> Self {
        Self::backed_by(options, |_| {})
    }

    /// As [`Mount::new`]; `prepare` is given the directory before it is mounted over.
    pub(crate) fn prepared(options: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let folder = folder();
        let dir = folder.path().join("cache");
        fs::create_dir(&dir).unwrap();
        prepare(&dir);
        Self::start(folder, dir, None, options)
    }

    /// As [`Mount::backed`]; `prepare` is given the backing directory before it is served.
    pub(crate) fn backed_by(options: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let folder = folder();
        let dir = folder.path().join("cache");
        let backing = folder.path().join("backing");
        fs::create_dir(&dir).unwrap();
        fs::create_dir(&backing).unwrap();
        prepare(&backing);
        Self::start(folder, dir, Some(backing), options)
    }

    /// Mounts over `dir`, which exists, wherever it is; with `backing` that is the backing directory.
    pub(crate) fn over(dir: &Path, backing: Option<&Path>, options: &[&str]) -> Self {
        let dir = dir.canonicalize().unwrap();
        Self::start(folder(), dir, backing.map(Path::to_owned), options)
    }

    fn start(folder: Folder, dir: PathBuf, backing: Option<PathBuf>, options: &[&str]) -> Self {
        // Opened before it is mounted over, so that it stays the plain directory.
        let plain = backing.as_deref().unwrap_or(&dir);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let beneath = rustix::fs::open(plain, flags, Mode::empty()).unwrap();
        let log = folder.path().join("log");
        let daemon = Daemon::start(&dir, backing.as_deref(), &log, options);
        Self {
            daemon,
            dir,
            backing,
            beneath,
            folder,
        }
    }

    /// The mount point.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path on the mount.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// The backing directory, as it is beneath the mount if it is mounted over. A path that
    /// processes started by the test can use as well, as long as this guard lives. What it names
    /// itself is a symbolic link: follow it.
    pub(crate) fn backing(&self) -> PathBuf {
        match &self.backing {
            Some(path) => path.clone(),
            None => format!(
                "/proc/{}/fd/{}",
                std::process::id(),
                self.beneath.as_raw_fd()
            )
            .into(),
        }
    }

    /// A temporary folder beside the mount, for whatever a test needs; the daemon logs to `log` in it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the daemon has logged until now.
    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }

    /// The daemon.
    pub(crate) fn pid(&self) -> Pid {
        self.daemon.pid
    }

    /// What it tells about itself now.
    pub(crate) fn stats(&self) -> Stats {
        stats(&self.dir)
    }

    /// Runs a command of kidafs, which must succeed, and returns what it prints.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        done(kidafs().args(arguments))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.daemon.signal(signal);
    }

    /// Kills the daemon and returns once it is dead. The mount stays, and fails with ENOTCONN.
    pub(crate) fn kill9(&mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// Returns once the daemon has ended.
    pub(crate) fn wait(&mut self) {
        assert!(self.daemon.ends_within(SOON), "it has not ended");
    }

    /// `kidafs umount`, which returns once the daemon has ended. The directory stays.
    ///
    /// A process that a test beside this one is just starting holds this process's descriptors until
    /// it runs its program, and so may keep the mount busy for a moment.
    pub(crate) fn umount(&mut self) {
        wait_for("the unmount", || {
            let output = kidafs().arg("umount").arg(&self.dir).output().unwrap();
            let said = text(&output);
            assert!(output.status.success() || said.contains("in use"), "{said}");
            output.status.success().then_some(())
        });
        assert!(self.daemon.ends_within(Duration::ZERO), "umount waits");
    }

    /// Unmounts and mounts again.
    pub(crate) fn remount(&mut self) {
        self.umount();
        self.mount(&[]);
    }

    /// Commits an entry as engines do: writes a temporary file beside it, by a name of Mako's, which goes with every
    /// entry's, and renames that. One at a time in each directory.
    pub(crate) fn commit(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        let temporary = path.with_file_name("tmpcommit0");
        fs::write(&temporary, content).unwrap();
        fs::rename(temporary, &path).unwrap();
        path
    }

    /// Mounts again what was unmounted, or whose daemon has died.
    pub(crate) fn mount(&mut self, options: &[&str]) {
        assert!(self.daemon.ends_within(Duration::ZERO), "it is mounted");
        let log = self.folder.path().join("log");
        self.daemon = Daemon::start(&self.dir, self.backing.as_deref(), &log, options);
    }
}

/// What the daemon on `dir` tells about itself now.
pub(crate) fn stats(dir: &Path) -> Stats {
    let json = fs::read(dir.join(".kidafs/stats.json")).unwrap();
    serde_json::from_slice(&json).unwrap()
}

/// The process of a daemon.
#[derive(Debug)]
struct Daemon {
    pid: Pid,
    process: OwnedFd,
    log: PathBuf,
}

impl Daemon {
    /// Runs `kidafs mount`, which returns when the mount answers.
    fn start(dir: &Path, backing: Option<&Path>, log: &Path, options: &[&str]) -> Self {
        let mut command = kidafs();
        command.arg("mount").arg("--log-file").arg(log);
        if let Some(backing) = backing {
            command.arg("--backing").arg(backing);
        }
        done(command.args(options).arg(dir));
        let pid = fs::read_to_string(dir.join(".kidafs/pid")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        Self {
            pid,
            process: rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap(),
            log: log.to_owned(),
        }
    }

    fn signal(&self, signal: Signal) {
        rustix::process::pidfd_send_signal(&self.process, signal).unwrap();
    }

    /// Whether it ends within this time; it is no child, so its status is not known.
    fn ends_within(&self, limit: Duration) -> bool {
        readable(&self.process, PollFlags::IN, limit).unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.ends_within(Duration::ZERO) {
            self.signal(Signal::TERM);
            if !self.ends_within(Duration::from_secs(5)) {
                self.signal(Signal::KILL);
            }
        }
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{log}");
        } else {
            assert!(!log.contains("panicked at"), "the daemon's log:\n{log}");
        }
    }
}

fn readable(fd: &OwnedFd, event: PollFlags, limit: Duration) -> io::Result<bool> {
    let limit = Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap(),
        tv_nsec: limit.subsec_nanos().into(),
    };
    Ok(rustix::event::poll(&mut [PollFd::new(fd, event)], Some(&limit))? > 0)
}

/// Returns when nothing is mounted on `dir` any more; the kernel tells of every change.
pub(crate) fn wait_until_unmounted(dir: &Path) {
    let table = OwnedFd::from(File::open("/proc/self/mountinfo").unwrap());
    let end = Instant::now() + SOON;
    while super::daemon::is_mount_root(dir) {
        assert!(Instant::now() < end, "it is still mounted");
        readable(&table, PollFlags::PRI, Duration::from_secs(1)).unwrap();
    }
}

/// Waits for something that no event tells of, such as what a daemon does by itself: asks every few
/// milliseconds, and fails if it does not come soon.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + SOON;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: it has not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}
