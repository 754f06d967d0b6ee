//! Unmounting, and waiting for the daemon to end.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, PidfdFlags};

use super::fusermount::{self, HelperError};
use super::mountinfo::Mount;
use super::mountpoint::{self, InspectError, State};

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
    /// Anything else.
    #[error("cannot unmount {}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
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

/// Unmounts the kidafs on `dir` and waits for its daemon to end, for `limit` at most. With `lazy`
/// a mount that is in use, or does not answer, is detached, and not waited for; one that does not answer is
/// aborted as well, so that the programs that wait for it get an error.
///
/// # Errors
/// Each with one sentence that says what to do.
pub fn unmount(dir: &Path, lazy: bool, limit: Duration) -> Result<Unmounted, UnmountError> {
    let found = mountpoint::inspect(dir)?;
    let path = found.path;
    match found.state {
        State::Live { mount, pid } if mount.is_kidafs() => {
            // Opened before the unmount, so that it names this daemon and no later process.
            let daemon = pid.and_then(|pid| Some((pid, open_process(pid)?)));
            match plain(&path) {
                Err(UnmountError::Busy { .. }) if lazy => {
                    return detach(&path).map(|()| Unmounted::Detached);
                }
                result => result?,
            }
            match daemon {
                Some((pid, process)) => wait(&path, pid, &process, limit),
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

fn open_process(pid: Pid) -> Option<std::os::fd::OwnedFd> {
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Waits until the process has ended; its descriptor then becomes readable.
fn wait(
    path: &Path,
    pid: Pid,
    process: &std::os::fd::OwnedFd,
    limit: Duration,
) -> Result<Unmounted, UnmountError> {
    let end = std::time::Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut events = [PollFd::new(process, PollFlags::IN)];
        match rustix::event::poll(&mut events, timeout.as_ref()) {
            Ok(0) => {
                return Err(UnmountError::StillRunning {
                    path: path.to_owned(),
                    pid,
                    waited: limit,
                });
            }
            Ok(_) => return Ok(Unmounted::Ended),
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
