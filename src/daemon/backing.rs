//! The backing directory: opened before it is mounted over, checked, and locked.
//!
//! Whoever can write into a bytecode cache can have code run by whoever reads it: `marshal.loads`
//! and `pickle.loads` run what they read. So a directory that others can write is refused, as ssh
//! refuses such a key file.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use rustix::process::Pid;

use super::elsewhere::{self, Elsewhere};
use super::farewell::{self, Lost};
use super::{mountpoint, strict_path};
use crate::layout::{LOCK, PID, PRIVATE_DIR, STATS_JSON};
use crate::tier::private::{self, Opened, Private, PrivateError};
use crate::tier::{Stranger, Trusted, writer};

/// Mode of every directory made here: its owner's alone.
const OWN: u32 = 0o700;

/// Why a backing directory is not served.
#[derive(Debug, thiserror::Error)]
pub enum BackingError {
    /// It belongs to somebody else.
    #[error(
        "{} belongs to user {owner}, who could plant code in it: serve a directory of your own, or chown it",
        path.display()
    )]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// It is one where everybody makes what he likes, such as /tmp.
    #[error(
        "{} is for the files of every user: make a directory of your own in it, and serve that",
        path.display()
    )]
    ForEverybody {
        /// The directory.
        path: PathBuf,
    },
    /// Everybody can write into it.
    #[error(
        "{} can be written by every user, who could plant code in it: run chmod o-w {}",
        path.display(), path.display()
    )]
    WorldWritable {
        /// The directory.
        path: PathBuf,
    },
    /// Its group can write into it, in which others are.
    #[error(
        "{} can be written by group {group}, whose members could plant code in it: run chmod g-w {}, or mount with --trust-group",
        path.display(), path.display()
    )]
    GroupWritable {
        /// The directory.
        path: PathBuf,
        /// The group.
        group: u32,
    },
    /// Its access control list lets others write into it.
    #[error(
        "{} can be written by others through its access control list, who could plant code in it: run setfacl -b {}",
        path.display(), path.display()
    )]
    Listed {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else could exchange a part of the path that root is to follow.
    #[error(
        "{} is not safe to follow for root: others can exchange {}; make {} root's or the directory owner's, writable by nobody else, or mount as that owner",
        path.display(), part.display(), folder.display()
    )]
    Exchangeable {
        /// The path.
        path: PathBuf,
        /// The part that can be exchanged.
        part: PathBuf,
        /// The folder that it is in.
        folder: PathBuf,
    },
    /// Its private folder, or something in it, is not what kidafs makes.
    #[error(
        "{} is not kidafs's own ({reason}): look at what it is, then move it away",
        path.display()
    )]
    Planted {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another daemon serves it.
    #[error(
        "{} is in use as a backing directory by another kidafs{}: unmount that one first",
        path.display(), .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The other daemon, unless it has only just begun.
        pid: Option<Pid>,
    },
    /// Another daemon serves it, for a copy of its mount in another place.
    #[error(
        "{} is in use as a backing directory by another kidafs (process {pid}), which lives on elsewhere: {place}",
        path.display()
    )]
    LockedElsewhere {
        /// The directory.
        path: PathBuf,
        /// The other daemon.
        pid: Pid,
        /// Where its mount is.
        place: Elsewhere,
    },
    /// It is a file.
    #[error("{} is not a directory: name a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The system does not permit it.
    #[error("no permission to {what} {}: it must be yours, with mode u+rwx", path.display())]
    Denied {
        /// The path.
        path: PathBuf,
        /// What was to be done.
        what: &'static str,
    },
    /// It is on a filesystem that cannot be written.
    #[error("{} is on a read-only filesystem: serve it with --read-only", path.display())]
    ReadOnly {
        /// The path.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What was to be done.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

impl BackingError {
    fn private(dir: &Path, error: PrivateError) -> Self {
        match error {
            PrivateError::Planted { name, reason } => Self::Planted {
                path: dir.join(name),
                reason,
            },
            PrivateError::System { name, what, errno } => Self::new(&dir.join(name), what, errno),
        }
    }

    /// The system's reason for a step on the way to `path`.
    pub(super) fn of(path: &Path, what: &'static str, errno: Errno) -> Self {
        Self::new(path, what, errno)
    }

    fn new(path: &Path, what: &'static str, errno: Errno) -> Self {
        let path = path.to_owned();
        match errno {
            Errno::NOTDIR => Self::NotADirectory { path },
            Errno::ACCESS | Errno::PERM => Self::Denied { path, what },
            Errno::ROFS => Self::ReadOnly { path },
            errno => Self::Io {
                path,
                what,
                source: errno.into(),
            },
        }
    }
}

/// Creates `dir` if it is missing. The directory itself gets mode 0700 whatever the umask, since it
/// is to hold code; missing parents get the umask's mode, as `mkdir -p` gives them.
///
/// # Errors
/// When it cannot be created. That something other than a directory is there is seen later.
pub fn create(dir: &Path) -> Result<(), BackingError> {
    let error = |error: io::Error| match Errno::from_io_error(&error) {
        Some(errno) => BackingError::new(dir, "create", errno),
        None => BackingError::Io {
            path: dir.to_owned(),
            what: "create",
            source: error,
        },
    };
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent).map_err(error)?;
    }
    match DirBuilder::new().mode(OWN).create(dir) {
        // Somebody else was quicker, or it is no directory.
        Err(problem) if problem.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(error),
    }
}

/// Who is to use what is served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Nothing will be written.
    pub read_only: bool,
    /// The mount lets other users in.
    pub allow_other: bool,
    /// The directory's group is trusted as its owner is.
    pub trust_group: bool,
}

/// A backing directory, open and locked. Dropping it unlocks it.
#[derive(Debug)]
pub struct Backing {
    path: PathBuf,
    directory: OwnedFd,
    private: Option<OwnedFd>,
    workshop: Option<Private>,
    leaves_plain: bool,
    trust_group: bool,
    /// The lock ends when the last descriptor of this opening is closed.
    lock: Option<File>,
}

impl Backing {
    /// Opens, checks and locks `path`, before anything is mounted over it. It must
    ///
    /// - belong to the daemon's user or to root. Root may also serve another user's directory, but
    ///   only with `allow_other`: else nobody but root would use it, and run that user's code;
    /// - not be writable by anybody else: everybody, a group that others are in (unless that is trusted), or
    ///   somebody whom its access control list names.
    ///
    /// Read-only on a read-only filesystem nothing is locked, since nothing there can change.
    ///
    /// # Errors
    /// Each with one sentence that says what to do.
    pub fn open(path: &Path, sharing: Sharing) -> Result<Self, BackingError> {
        strict_path::check(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| BackingError::new(path, "open", errno))?;
        let stat = rustix::fs::fstat(&directory)
            .map_err(|errno| BackingError::new(path, "look at", errno))?;
        check(path, directory.as_fd(), &stat, sharing)?;

        let mut backing = Self {
            path: path.to_owned(),
            directory,
            private: None,
            workshop: None,
            leaves_plain: false,
            trust_group: sharing.trust_group,
            lock: None,
        };
        match backing.lock(sharing.read_only) {
            Err(BackingError::ReadOnly { .. }) if sharing.read_only => Ok(backing),
            Err(_) if is_kidafs(backing.directory.as_fd()) => Err(BackingError::Locked {
                path: path.to_owned(),
                pid: None,
            }),
            Err(error) => Err(error),
            Ok(()) => Ok(backing),
        }
    }

    /// Opens and locks the private folder.
    fn lock(&mut self, read_only: bool) -> Result<(), BackingError> {
        let root = self.directory.as_fd();
        let failed = |error| BackingError::private(&self.path, error);
        let (folder, lock) = loop {
            let folder = private::folder(root).map_err(failed)?;
            match lock(&self.path, folder.as_fd()) {
                Ok(lock) => break (folder, lock),
                // The daemon that has just ended took the folder along.
                Err(BackingError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        };
        if !read_only {
            self.workshop = Some(Private::open(root, folder.as_fd()).map_err(failed)?);
        }
        self.private = Some(folder);
        self.lock = Some(lock);
        Ok(())
    }

    /// Has the private folder go with this, unless something is kept in it for people to look at: after a clean
    /// end the directory is a plain one.
    pub fn leave_plain(&mut self) {
        self.leaves_plain = true;
    }

    /// What serves the directory: a further descriptor of it, and what is below its private folder.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn opened(&mut self) -> io::Result<Opened> {
        Ok(Opened {
            root: self.directory.try_clone()?,
            private: self.workshop.take(),
            seals: None,
            trust_group: self.trust_group,
        })
    }

    /// The directory, under whatever is mounted over its path.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Its private folder; `None` on a read-only filesystem that has none.
    pub fn private(&self) -> Option<BorrowedFd<'_>> {
        self.private.as_ref().map(OwnedFd::as_fd)
    }

    /// Leaves word of what could not be written, for the command that ends this daemon.
    pub fn leave_word(&mut self, lost: &Lost) {
        self.leaves_plain = false;
        if let Some(lock) = &self.lock
            && let Err(error) = farewell::leave(lock, lost)
        {
            log::warn!("whoever ended this daemon will not be told what is lost: {error}");
        }
    }

    /// The path by which it was opened, for messages. Once it is mounted over, the path leads
    /// elsewhere.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn check(
    path: &Path,
    directory: BorrowedFd<'_>,
    stat: &Stat,
    sharing: Sharing,
) -> Result<(), BackingError> {
    let user = rustix::process::geteuid();
    let own = stat.st_uid == user.as_raw() || stat.st_uid == 0;
    let shared = user.is_root() && sharing.allow_other;
    if !own && !shared {
        return Err(BackingError::ForeignOwner {
            path: path.to_owned(),
            owner: stat.st_uid,
        });
    }
    let mode = Mode::from_raw_mode(stat.st_mode);
    if mode.contains(Mode::WOTH | Mode::SVTX) {
        return Err(BackingError::ForEverybody {
            path: path.to_owned(),
        });
    }
    if mode.contains(Mode::WOTH) {
        return Err(BackingError::WorldWritable {
            path: path.to_owned(),
        });
    }
    let trusted = match sharing.trust_group {
        true => Trusted::with_group(stat.st_uid, stat.st_gid),
        false => Trusted::with_owner(stat.st_uid),
    };
    let path = path.to_owned();
    match writer(directory, &trusted) {
        Ok(None) => Ok(()),
        Ok(Some(Stranger::Group(group))) => Err(BackingError::GroupWritable { path, group }),
        Ok(Some(_)) => Err(BackingError::Listed { path }),
        Err(errno) => Err(BackingError::new(&path, "look at", errno)),
    }
}

/// Whether an open directory is that of a kidafs mount: another daemon was quicker.
fn is_kidafs(directory: BorrowedFd<'_>) -> bool {
    const FUSE: u64 = 0x6573_5546;
    // Linux, include/uapi/linux/magic.h: FUSE_SUPER_MAGIC.
    let is_fuse = rustix::fs::fstatfs(directory).is_ok_and(|fs| fs.f_type as u64 == FUSE);
    is_fuse
        && [STATS_JSON, PID].iter().all(|name| {
            let path = Path::new(PRIVATE_DIR).join(name);
            rustix::fs::statat(directory, &path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
        })
}

impl Drop for Backing {
    fn drop(&mut self) {
        if self.leaves_plain
            && let (Some(folder), Some(_)) = (&self.private, &self.lock)
        {
            private::remove(self.directory.as_fd(), folder.as_fd());
        }
    }
}

/// Takes the lock. It is the kernel's (flock), so that a dead daemon's lock is gone with it and
/// what is written in the file is for people only.
fn lock(path: &Path, private: BorrowedFd<'_>) -> Result<File, BackingError> {
    let file_path = path.join(PRIVATE_DIR).join(LOCK);
    let error = |errno| BackingError::new(&file_path, "lock", errno);
    let planted = |reason| BackingError::Planted {
        path: file_path.clone(),
        reason,
    };
    loop {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(private, LOCK, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(opened.map_err(|errno| match errno {
            Errno::LOOP => planted("it is a symbolic link"),
            Errno::ISDIR => planted("it is a directory"),
            errno => error(errno),
        })?);
        let held = rustix::fs::fstat(&file).map_err(error)?;
        if FileType::from_raw_mode(held.st_mode) != FileType::RegularFile {
            return Err(planted("it is no regular file"));
        }
        give_away(private, &file, &held).map_err(error)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::INTR) => continue,
            Err(Errno::WOULDBLOCK) => {
                return Err(locked(path, mountpoint::parse_pid(&mut file)));
            }
            Err(errno) => return Err(error(errno)),
        }
        // A file that was removed in between is locked by nobody who comes later.
        match rustix::fs::statat(private, LOCK, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) if (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino) => {}
            Ok(_) | Err(Errno::NOENT) => continue,
            Err(errno) => return Err(error(errno)),
        }
        // Not worth failing for: a full disk must not keep a cache from being served.
        if let Err(error) = write_pid(&mut file) {
            log::warn!("cannot write {}: {error}", file_path.display());
        }
        return Ok(file);
    }
}

/// The lock is whose folder it is in, so that he can serve the directory himself after root has.
fn give_away(private: BorrowedFd<'_>, file: &File, held: &Stat) -> rustix::io::Result<()> {
    let folder = rustix::fs::fstat(private)?;
    if !rustix::process::geteuid().is_root() || held.st_uid == folder.st_uid {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(folder.st_uid), Gid::from_raw(folder.st_gid));
    rustix::fs::fchown(file, Some(uid), Some(gid))
}

/// Another daemon holds the lock. If nothing is mounted on the directory here, a copy of its mount elsewhere may
/// be what keeps that daemon.
fn locked(path: &Path, pid: Option<Pid>) -> BackingError {
    let place = elsewhere::find(|mount| mount.is_kidafs() && mount.mount_point == path);
    match (pid, place) {
        (Some(pid), Some(place)) if place.process.is_some() => BackingError::LockedElsewhere {
            path: path.to_owned(),
            pid,
            place,
        },
        _ => BackingError::Locked {
            path: path.to_owned(),
            pid,
        },
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}
