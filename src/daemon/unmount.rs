//! Unmounting, and waiting for the daemon to end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, PidfdFlags};

use super::elsewhere::{self, Elsewhere};
use super::farewell::{self, Lost};
use super::fusermount::{self, HelperError};
use super::mountinfo::Mount;
use super::mountpoint::{self, InspectError, State};
use crate::layout::{LOCK, PRIVATE_DIR};

/// Why a mount is still there, or its daemon.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// It could not be looked at.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// No kidafs is mounted there.
    #[error("{} is not a kidafs mount: see `findmnt -t fuse.kidafs` for those there are", path.display())]
    NotMounted {
        /// The directory.
        path: PathBuf,
    },
    /// It is in use.
    #[error(
        "{} is in use: close what `fuser -vm {}` lists and try again, or detach it with `kidafs umount --lazy {}`",
        path.display(), path.display(), path.display()
    )]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// Its daemon does not answer, so an unmount might wait for it for good.
    #[error(
        "{} is mounted, but its daemon does not answer: end that process, or detach the mount with `kidafs umount --lazy {}`",
        path.display(), path.display()
    )]
    Silent {
        /// The directory.
        path: PathBuf,
    },
    /// It is another user's.
    #[error("{} was mounted by another user: only that user or root can unmount it", path.display())]
    Denied {
        /// The directory.
        path: PathBuf,
    },
    /// `fusermount3` is missing.
    #[error(
        "fusermount3 was not found, and only root unmounts without it: install the package fuse3, or run as root"
    )]
    NoHelper,
    /// `fusermount3` refused for a reason of its own.
    #[error("fusermount3 did not unmount {}: {reason}", path.display())]
    Helper {
        /// The directory.
        path: PathBuf,
        /// Its words.
        reason: String,
    },
    /// It is unmounted, but its daemon goes on.
    #[error(
        "{} is unmounted, but its daemon (process {pid}) has not ended after {} s: it may still be writing; wait, or look at its log",
        path.display(), waited.as_secs()
    )]
    StillRunning {
        /// The directory.
        path: PathBuf,
        /// The daemon.
        pid: Pid,
        /// How long it was waited for.
        waited: Duration,
    },
    /// It is unmounted here, but mounted somewhere else as well, so its daemon goes on.
    #[error(
        "{} is unmounted, but its daemon (process {pid}) goes on, for {place}; `kill {pid}` ends the daemon all the same",
        path.display()
    )]
    Elsewhere {
        /// The directory.
        path: PathBuf,
        /// The daemon.
        pid: Pid,
        /// Where else it is.
        place: Elsewhere,
    },
    /// It is unmounted, but its daemon is stopped (SIGSTOP, Ctrl-Z).
    #[error(
        "{} is unmounted, but its daemon (process {pid}) is stopped and can write nothing: run `kill -CONT {pid}`",
        path.display()
    )]
    Stopped {
        /// The directory.
        path: PathBuf,
        /// The daemon.
        pid: Pid,
    },
    /// It is unmounted and its daemon has ended, but not everything could be written.
    #[error(
        "{} is unmounted, but {lost} could not be written to the backing directory and are lost: see whether the disk is full",
        path.display()
    )]
    Lost {
        /// The directory.
        path: PathBuf,
        /// What is lost.
        lost: Lost,
    },
    /// Anything else.
    #[error("cannot unmount {}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl From<Duration> for Limits {
    /// Waits for the daemon for as long, and for files to be closed for [`BUSY_LIMIT`] of that.
    fn from(end: Duration) -> Self {
        Self {
            busy: end.min(BUSY_LIMIT),
            end,
        }
    }
}

/// How a directory was unmounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmounted {
    /// The daemon has ended; everything is written and the backing directory is unlocked.
    Ended,
    /// It is unmounted. The daemon's process cannot be told by this user, so it was not waited for.
    NotWaited,
    /// It was in use and has been detached. The daemon goes on until the last file is closed.
    Detached,
    /// It was dead, and has been detached.
    Dead,
}

/// How long a mount that is in use is tried again, unless it is said otherwise: nearly every file is open for less.
pub const BUSY_LIMIT: Duration = Duration::from_secs(2);

/// How often: no event tells that the last file was closed.
const BUSY_STEP: Duration = Duration::from_millis(20);

/// How long a daemon may take to answer before its mount is unmounted without asking it more.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// How long a daemon may take to end before it is looked for what keeps it, and how often that is done.
const END_MOMENT: Duration = Duration::from_millis(400);

/// How often a copy of the mount must have been found before to be the reason: a container that is just being
/// started has one for a moment.
const FOUND: u32 = 2;

/// How long a command waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For files to be closed.
    pub busy: Duration,
    /// For the daemon to end.
    pub end: Duration,
}

/// Unmounts the kidafs on `dir` and waits for its daemon to end. With `lazy`
/// a mount that is in use, or does not answer, is detached, and not waited for; one that does not answer is
/// aborted as well, so that the programs that wait for it get an error.
///
/// # Errors
/// Each with one sentence that says what to do. [`UnmountError::Silent`]: its daemon has not answered, and a thread
/// of this process still waits for it; [`unmount_unasked`] from another process may help.
pub fn unmount(
    dir: &Path,
    lazy: bool,
    limits: impl Into<Limits>,
) -> Result<Unmounted, UnmountError> {
    let limits = limits.into();
    let found = mountpoint::inspect_within(dir, ANSWER_LIMIT)?;
    let path = found.path;
    match found.state {
        State::Live { mount, pid } if mount.is_kidafs() => {
            // Opened before the unmount, so that it names this daemon and no later process.
            let daemon = pid.and_then(|pid| Some((pid, open_process(pid)?)));
            let busy = if lazy { Duration::ZERO } else { limits.busy };
            match plain_within(&path, busy) {
                Err(UnmountError::Busy { .. }) if lazy => {
                    return detach(&path).map(|()| Unmounted::Detached);
                }
                result => result?,
            }
            match daemon {
                Some((pid, process)) => wait(&path, &mount, pid, &process, limits.end),
                None => Ok(Unmounted::NotWaited),
            }
        }
        State::Dead(mount) if mount.is_kidafs() => detach(&path).map(|()| Unmounted::Dead),
        State::Silent(mount) if mount.is_kidafs() && lazy => {
            abort(&path, &mount);
            match detach(&path) {
                // The abort may have been all that it took.
                Ok(()) | Err(UnmountError::NotMounted { .. }) => Ok(Unmounted::Detached),
                Err(error) => Err(error),
            }
        }
        State::Silent(mount) if mount.is_kidafs() => Err(UnmountError::Silent { path }),
        _ => Err(UnmountError::NotMounted { path }),
    }
}

/// As [`unmount`], but the daemon is not asked: it may be reading its directory in, or be stopped. Whether it has
/// ended is told by its lock on the backing directory.
///
/// # Errors
/// As [`unmount`]; [`UnmountError::Silent`] if the mount is in use as well, as by those that wait for an answer.
pub fn unmount_unasked(dir: &Path, limits: Limits) -> Result<Unmounted, UnmountError> {
    let (path, mount) = mountpoint::mount_on(dir)?;
    let Some(mount) = mount.filter(Mount::is_kidafs) else {
        return Err(UnmountError::NotMounted { path });
    };
    plain_within(&path, limits.busy).map_err(|error| match error {
        UnmountError::Busy { path } => UnmountError::Silent { path },
        error => error,
    })?;
    let lock = backing_of(&path, &mount).join(PRIVATE_DIR).join(LOCK);
    // Without a lock (read-only) nothing is written that would have to be waited for.
    let pid = std::fs::File::open(lock)
        .ok()
        .and_then(mountpoint::parse_pid);
    match pid.and_then(|pid| Some((pid, open_process(pid)?))) {
        Some((pid, process)) => wait(&path, &mount, pid, &process, limits.end),
        None => Ok(Unmounted::Ended),
    }
}

/// Where the entries are, once nothing is mounted there any more.
fn backing_of<'a>(path: &'a Path, mount: &'a Mount) -> &'a Path {
    let source = Path::new(&mount.source);
    if source.is_absolute() { source } else { path }
}

fn open_process(pid: Pid) -> Option<std::os::fd::OwnedFd> {
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()
}

fn plain_within(path: &Path, busy: Duration) -> Result<(), UnmountError> {
    let deadline = Instant::now() + busy;
    loop {
        match plain(path) {
            Err(UnmountError::Busy { .. }) if Instant::now() < deadline => {
                std::thread::sleep(BUSY_STEP);
            }
            result => return result,
        }
    }
}

/// Waits until the daemon has ended, unless something is found that keeps it.
fn wait(
    path: &Path,
    mount: &Mount,
    pid: Pid,
    process: &std::os::fd::OwnedFd,
    limit: Duration,
) -> Result<Unmounted, UnmountError> {
    let path = path.to_owned();
    let deadline = Instant::now() + limit;
    let mut found_before = 0;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if has_ended(&path, process, left.min(END_MOMENT))? {
            break;
        }
        if is_stopped(pid) {
            return Err(UnmountError::Stopped { path, pid });
        }
        let same = |other: &Mount| other.is_kidafs() && other.device == mount.device;
        match elsewhere::find(same) {
            Some(place) if found_before >= FOUND => {
                return Err(UnmountError::Elsewhere { path, pid, place });
            }
            Some(_) => found_before += 1,
            None => found_before = 0,
        }
        if left.is_zero() {
            let waited = limit;
            return Err(UnmountError::StillRunning { path, pid, waited });
        }
    }
    match farewell::read(backing_of(&path, mount), pid) {
        Some(lost) => Err(UnmountError::Lost { path, lost }),
        None => Ok(Unmounted::Ended),
    }
}

/// Whether the process ends within `limit`; its descriptor then becomes readable.
fn has_ended(
    path: &Path,
    process: &std::os::fd::OwnedFd,
    limit: Duration,
) -> Result<bool, UnmountError> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut events = [PollFd::new(process, PollFlags::IN)];
        match rustix::event::poll(&mut events, timeout.as_ref()) {
            Ok(ended) => return Ok(ended > 0),
            Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(UnmountError::Io {
                    path: path.to_owned(),
                    source: errno.into(),
                });
            }
        }
    }
}

/// Whether a process is stopped by a signal (proc_pid_stat(5), the state after the name in parentheses).
fn is_stopped(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| rest.starts_with(['T', 't']))
}

/// Ends the connection of a mount that does not answer, as far as this user may.
///
/// A daemon that was killed in the middle of a notice can be unable to die: its notice waits for a lock of a
/// program that waits for the daemon. Only the end of the connection frees them all.
fn abort(path: &Path, mount: &Mount) {
    let aborted = if rustix::process::geteuid().is_root() {
        // Aborts first, and then tries to unmount, which others may hinder (`do_umount` in fs/namespace.c).
        match rustix::mount::unmount(path, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::BUSY) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    } else {
        let connection = format!("/sys/fs/fuse/connections/{}/abort", mount.device.1);
        std::fs::write(connection, "1")
    };
    if let Err(error) = aborted {
        log::warn!("the connection of {} stays: {error}", path.display());
    }
}

/// Unmounts what is on top at `path`, a path without symbolic links; fails if it is in use.
pub(super) fn plain(path: &Path) -> Result<(), UnmountError> {
    unmount_once(path, false)
}

/// Detaches what is on top at `path`, in use or not.
pub(super) fn detach(path: &Path) -> Result<(), UnmountError> {
    unmount_once(path, true)
}

fn unmount_once(path: &Path, lazy: bool) -> Result<(), UnmountError> {
    if !rustix::process::geteuid().is_root() {
        return fusermount::unmount(path, lazy).map_err(|error| refusal(path, error));
    }
    let mut flags = UnmountFlags::NOFOLLOW;
    if lazy {
        flags |= UnmountFlags::DETACH;
    }
    rustix::mount::unmount(path, flags).map_err(|errno| {
        let path = path.to_owned();
        match errno {
            Errno::BUSY => UnmountError::Busy { path },
            Errno::INVAL | Errno::NOENT => UnmountError::NotMounted { path },
            Errno::PERM => UnmountError::Denied { path },
            errno => UnmountError::Io {
                path,
                source: errno.into(),
            },
        }
    })
}

/// Sorts the words of `fusermount3`. It speaks of `/etc/mtab` when the mount is not the user's.
fn refusal(path: &Path, error: HelperError) -> UnmountError {
    let path = path.to_owned();
    match error {
        HelperError::Missing => UnmountError::NoHelper,
        HelperError::Refused(reason) if reason.contains("Device or resource busy") => {
            UnmountError::Busy { path }
        }
        HelperError::Refused(reason) if reason.contains("not found in /etc/mtab") => {
            UnmountError::Denied { path }
        }
        HelperError::Refused(reason) => UnmountError::Helper { path, reason },
        HelperError::Io(source) => UnmountError::Io { path, source },
    }
}
