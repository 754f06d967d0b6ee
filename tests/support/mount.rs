//! A real mount: the binary itself, on a directory of its own, ended and removed on drop.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use kidafs::daemon::mountinfo;
use kidafs::stats::Stats;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
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
    command.env("KIDAFS_CONFIG", "/dev/null");
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
    /// The directory that was mounted over; none if the test keeps its filesystem free to be unmounted.
    beneath: Option<OwnedFd>,
    /// The identity of the mount in the kernel's table.
    id: u64,
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
        Self::serve(folder, dir, None, options)
    }

    /// As [`Mount::backed`]; `prepare` is given the backing directory before it is served.
    pub(crate) fn backed_by(options: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let folder = folder();
        let dir = folder.path().join("cache");
        let backing = folder.path().join("backing");
        fs::create_dir(&dir).unwrap();
        fs::create_dir(&backing).unwrap();
        prepare(&backing);
        Self::serve(folder, dir, Some(backing), options)
    }

    /// Mounts over `dir`, which exists, wherever it is; with `backing` that is the backing directory.
    pub(crate) fn over(dir: &Path, backing: Option<&Path>, options: &[&str]) -> Self {
        let dir = dir.canonicalize().unwrap();
        Self::serve(folder(), dir, backing.map(Path::to_owned), options)
    }

    /// Serves `dir`, which need not exist and has no symbolic links in its path. The directory beneath is not kept
    /// open: what it is on can be unmounted. `options` may name a backing directory.
    pub(crate) fn start(dir: &Path, options: &[&str]) -> Self {
        match Self::try_start(dir, options) {
            Ok(mount) => mount,
            Err(said) => panic!("{} is not served: {said}", dir.display()),
        }
    }

    /// The same; the error is what the command said.
    pub(crate) fn try_start(dir: &Path, options: &[&str]) -> Result<Self, String> {
        let folder = folder();
        let daemon = Daemon::try_start(dir, None, &folder.path().join("log"), options)?;
        Ok(Self {
            daemon,
            dir: dir.to_owned(),
            backing: None,
            beneath: None,
            id: id(dir),
            folder,
        })
    }

    fn serve(folder: Folder, dir: PathBuf, backing: Option<PathBuf>, options: &[&str]) -> Self {
        // Opened before it is mounted over, so that it stays the plain directory.
        let plain = backing.as_deref().unwrap_or(&dir);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let beneath = rustix::fs::open(plain, flags, Mode::empty()).unwrap();
        let log = folder.path().join("log");
        let daemon = Daemon::start(&dir, backing.as_deref(), &log, options);
        Self {
            daemon,
            backing,
            beneath: Some(beneath),
            id: id(&dir),
            dir,
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
    ///
    /// # Panics
    /// After [`Mount::start`]: that does not keep it open.
    pub(crate) fn backing(&self) -> PathBuf {
        match (&self.backing, &self.beneath) {
            (Some(path), _) => path.clone(),
            (None, Some(beneath)) => {
                format!("/proc/{}/fd/{}", std::process::id(), beneath.as_raw_fd()).into()
            }
            (None, None) => panic!("the directory beneath is not kept open"),
        }
    }

    /// A temporary folder beside the mount, for whatever a test needs; the daemon logs to `log` in it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What `kidafs mount` has said, and the daemon logged until now.
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

    /// Asks for a sweep, as `kidafs sweep` does.
    pub(crate) fn ask_to_sweep(&self) {
        self.signal(Signal::USR1);
    }

    /// Bytes of the daemon's memory that are resident.
    pub(crate) fn resident(&self) -> u64 {
        self.daemon.status_bytes("VmRSS:")
    }

    /// The most that were ever resident.
    pub(crate) fn most_resident(&self) -> u64 {
        self.daemon.status_bytes("VmHWM:")
    }

    /// Kills the daemon as it is. The mount stays behind, dead; false if the daemon could not die before
    /// the mount was given up.
    ///
    /// A notice of new content waits for the page that a program is reading at that moment, and cannot be
    /// killed (`fuse_notify_store` in fs/fuse/dev.c).
    pub(crate) fn kill(&mut self) -> bool {
        self.signal(Signal::KILL);
        if self.daemon.ends_within(Duration::from_secs(2)) {
            return true;
        }
        done(kidafs().args(["umount", "--lazy"]).arg(&self.dir));
        self.wait();
        false
    }

    /// Detaches the mount, so that the directory beneath is seen.
    pub(crate) fn detach(&self) {
        let table = mountinfo::read().unwrap();
        if mountinfo::top(&table, &self.dir).is_none_or(|mount| mount.id != self.id) {
            return;
        }
        if rustix::mount::unmount(&self.dir, UnmountFlags::DETACH).is_err() {
            let _ = Command::new("fusermount3")
                .args(["-u", "-z"])
                .arg(&self.dir)
                .status();
        }
    }

    /// Kills the daemon and returns once it is dead. The mount stays, and fails with ENOTCONN.
    pub(crate) fn kill9(&mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// Returns once the daemon has ended.
    pub(crate) fn wait(&mut self) {
        assert!(
            self.daemon.ends_within(SOON),
            "it has not ended: {:#?}",
            self.daemon.threads()
        );
    }

    /// `kidafs umount`, which returns once the daemon has ended. The directory stays.
    ///
    /// A process that a test beside this one is just starting holds this process's descriptors until
    /// it runs its program, and so may keep the mount busy for a moment.
    pub(crate) fn umount(&mut self) {
        wait_for("the unmount", || {
            let output = kidafs().arg("umount").arg(&self.dir).output().unwrap();
            let said = text(&output);
            let busy = said.contains("in use");
            assert!(
                output.status.success() || busy,
                "{said}{:#?}",
                self.daemon.threads()
            );
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
        self.id = id(&self.dir);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.daemon.end();
        self.detach();
    }
}

/// The identity of the mount that is seen on `dir`; the daemon may be dead by now, so nothing of it is asked.
fn id(dir: &Path) -> u64 {
    let table = mountinfo::read().unwrap();
    mountinfo::top(&table, dir).map_or(0, |mount| mount.id)
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
    /// What the command said before the mount answered; then the log begins.
    said: String,
    log: PathBuf,
}

impl Daemon {
    /// Runs `kidafs mount`, which returns when the mount answers.
    fn start(dir: &Path, backing: Option<&Path>, log: &Path, options: &[&str]) -> Self {
        Self::try_start(dir, backing, log, options)
            .unwrap_or_else(|said| panic!("{options:?}: {said}"))
    }

    /// The same; the error is what the command said.
    fn try_start(
        dir: &Path,
        backing: Option<&Path>,
        log: &Path,
        options: &[&str],
    ) -> Result<Self, String> {
        let mut command = kidafs();
        command.arg("mount").arg("--log-file").arg(log);
        if let Some(backing) = backing {
            command.arg("--backing").arg(backing);
        }
        let output = command.args(options).arg(dir).output().unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let pid = fs::read_to_string(dir.join(".kidafs/pid")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        Ok(Self {
            pid,
            process: rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap(),
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
            log: log.to_owned(),
        })
    }

    fn signal(&self, signal: Signal) {
        rustix::process::pidfd_send_signal(&self.process, signal).unwrap();
    }

    /// Whether it ends within this time; it is no child, so its status is not known.
    fn ends_within(&self, limit: Duration) -> bool {
        readable(&self.process, PollFlags::IN, limit).unwrap()
    }

    fn log(&self) -> String {
        let logged = fs::read_to_string(&self.log).unwrap_or_default();
        format!("{}{logged}", self.said)
    }

    fn status_bytes(&self, key: &str) -> u64 {
        let status = format!("/proc/{}/status", self.pid.as_raw_nonzero());
        let status = fs::read_to_string(status).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// What each of its threads waits for in the kernel, for the report of a failure.
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

    fn end(&self) {
        if !self.ends_within(Duration::ZERO) {
            self.signal(Signal::TERM);
            if !self.ends_within(Duration::from_secs(5)) {
                self.signal(Signal::KILL);
                self.ends_within(Duration::from_secs(10));
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
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
pub(crate) fn wait_for<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    wait_within(what, SOON, ask)
}

/// The same for what is either so or not, with a limit.
pub(crate) fn until(what: &str, limit: Duration, mut so: impl FnMut() -> bool) {
    wait_within(what, limit, || so().then_some(()));
}

fn wait_within<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(
            Instant::now() < end,
            "{what}: it has not come within {limit:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
