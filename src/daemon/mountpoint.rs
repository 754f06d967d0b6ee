//! What is at a directory that is to be served, found out without ever hanging on it.
//!
//! A `stat` of a FUSE mount whose daemon hangs blocks for good, and one of a kidafs mount whose
//! daemon died may even succeed, because its attributes never leave the kernel's cache. So the
//! directory is opened with `O_PATH`, which sends the daemon nothing; the mount is told by its
//! number; and only then is the daemon asked, by a thread that may be left behind.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use super::mountinfo::{self, Mount};

/// How long a daemon may take to answer before its mount counts as silent.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The file in a mount that holds its daemon's process id, in decimal.
pub const PID_FILE: &str = ".kidafs/pid";

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Missing,
    /// A directory that can be mounted over, on whichever filesystem.
    Directory,
    /// The root of a kidafs mount that answers.
    Live {
        /// The mount.
        mount: Mount,
        /// Its daemon; `None` if the mount does not let this user read it.
        pid: Option<Pid>,
    },
    /// The root of a FUSE mount, kidafs's or not, whose daemon is gone (ENOTCONN).
    Dead(Mount),
    /// The root of a FUSE mount, kidafs's or not, whose daemon has not answered within
    /// [`ANSWER_LIMIT`].
    Silent(Mount),
}

/// A path and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mountpoint {
    /// The path, absolute and free of symbolic links; made absolute only if it is [`State::Missing`].
    pub path: PathBuf,
    /// What is there.
    pub state: State,
}

/// Why a path could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It is a file, or goes through one.
    #[error("{} is not a directory: name a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// A directory on the way may not be searched.
    #[error(
        "no permission to reach {}: every directory above it needs the right to search (chmod a+x)",
        path.display()
    )]
    Denied {
        /// The path.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot look at {}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl InspectError {
    fn new(path: &Path, errno: Errno) -> Self {
        let path = path.to_owned();
        match errno {
            Errno::NOTDIR => Self::NotADirectory { path },
            Errno::ACCESS | Errno::PERM => Self::Denied { path },
            errno => Self::Io {
                path,
                source: errno.into(),
            },
        }
    }
}

/// Looks at `dir` without hanging, following symbolic links.
///
/// # Errors
/// When `dir` is no directory, cannot be reached, or `/proc` is not mounted.
pub fn inspect(dir: &Path) -> Result<Mountpoint, InspectError> {
    inspect_within(dir, ANSWER_LIMIT)
}

/// As [`inspect`], with a limit of one's own for the daemon's answer.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_within(dir: &Path, limit: Duration) -> Result<Mountpoint, InspectError> {
    let io_error = |source| InspectError::Io {
        path: dir.to_owned(),
        source,
    };
    let fd = match open_path(dir) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => {
            return Ok(Mountpoint {
                path: std::path::absolute(dir).map_err(io_error)?,
                state: State::Missing,
            });
        }
        Err(errno) => return Err(InspectError::new(dir, errno)),
    };
    let (path, mount) = mount_at(dir, &fd)?;
    let state = match mount {
        Some(mount) if mount.is_fuse() => match ask(fd, limit) {
            Answer::Dead => State::Dead(mount),
            Answer::Alive(pid) if mount.is_kidafs() => State::Live { mount, pid },
            Answer::None => State::Silent(mount),
            Answer::Alive(_) => State::Directory,
        },
        _ => State::Directory,
    };
    Ok(Mountpoint { path, state })
}

/// What is mounted on `dir`, whatever it is, with `dir`'s own path; its daemon is not asked.
///
/// # Errors
/// As [`inspect`].
pub(super) fn mount_on(dir: &Path) -> Result<(PathBuf, Option<Mount>), InspectError> {
    let fd = open_path(dir).map_err(|errno| InspectError::new(dir, errno))?;
    mount_at(dir, &fd)
}

fn mount_at(dir: &Path, fd: &OwnedFd) -> Result<(PathBuf, Option<Mount>), InspectError> {
    let io_error = |source| InspectError::Io {
        path: dir.to_owned(),
        source,
    };
    let path = path_of(fd.as_fd()).map_err(io_error)?;
    let id = mount_id(fd.as_fd()).map_err(|errno| io_error(errno.into()))?;
    let mount = mountinfo::read()
        .map_err(io_error)?
        .into_iter()
        .find(|mount| mount.id == id && mount.mount_point == path);
    Ok((path, mount))
}

/// Opens a directory as a mere place in the tree: no message to a FUSE daemon that serves it, but,
/// as long as it is held, the mount is busy.
pub(super) fn open_path(dir: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(
        dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// The number of the mount a descriptor is on, as in the first field of mountinfo.
///
/// Asking for no attribute at all is what makes it safe: FUSE then answers without its daemon, and
/// answers users it would otherwise turn away (`fuse_getattr` in fs/fuse/dir.c, Linux 4.20 on).
pub(super) fn mount_id(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let nothing = StatxFlags::empty();
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = rustix::fs::statx(fd, "", flags, nothing)?;
    if StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID) {
        Ok(found.stx_mnt_id)
    } else {
        // Linux before 5.8.
        Err(Errno::NOSYS)
    }
}

/// The number of the mount on which `dir` is, told without asking its daemon; `None` if it cannot be told.
pub fn id_of(dir: &Path) -> Option<u64> {
    mount_id(open_path(dir).ok()?.as_fd()).ok()
}

/// The path of an open directory, as the kernel knows it now.
fn path_of(fd: BorrowedFd<'_>) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

enum Answer {
    Alive(Option<Pid>),
    Dead,
    None,
}

/// Has the daemon behind `fd` answer one message, and tell its process id.
fn ask(fd: OwnedFd, limit: Duration) -> Answer {
    let (sender, answer) = mpsc::sync_channel(1);
    let asking = std::thread::Builder::new()
        .name("kidafs-ask".to_owned())
        .spawn(move || {
            let answer = ask_blocking(fd.as_fd());
            // Closed before the answer is heard, or an unmount that follows finds the mount busy.
            drop(fd);
            // Nobody may be waiting any longer.
            let _ = sender.send(answer);
        });
    match asking {
        // A thread left behind waits in the kernel, killably: it does not keep this process.
        Ok(_) => answer.recv_timeout(limit).unwrap_or(Answer::None),
        Err(_) => Answer::None,
    }
}

fn ask_blocking(fd: BorrowedFd<'_>) -> Answer {
    // FORCE_SYNC: past the kernel's cached attributes, which outlive the daemon.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    match rustix::fs::statx(fd, "", flags, StatxFlags::BASIC_STATS) {
        Ok(_) => Answer::Alive(read_pid(fd)),
        // ECONNREFUSED: it died before it had answered the kernel's first message.
        Err(Errno::NOTCONN | Errno::CONNABORTED | Errno::CONNREFUSED) => Answer::Dead,
        // Another user's mount (EACCES), or a daemon with troubles of its own: it is there.
        Err(_) => Answer::Alive(None),
    }
}

fn read_pid(root: BorrowedFd<'_>) -> Option<Pid> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::openat(root, OsStr::new(PID_FILE), flags, Mode::empty()).ok()?;
    parse_pid(File::from(file))
}

/// A process id in decimal, on the first line; `None` if it is anything else.
pub(super) fn parse_pid(file: impl Read) -> Option<Pid> {
    let mut head = Vec::new();
    file.take(32).read_to_end(&mut head).ok()?;
    let number: u32 = String::from_utf8_lossy(&head)
        .lines()
        .next()?
        .trim()
        .parse()
        .ok()?;
    Pid::from_raw(i32::try_from(number).ok()?)
}
