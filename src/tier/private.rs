//! The private folder on disk: made, opened once, checked, and taken away again.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Stat, Uid};
use rustix::io::Errno;

use super::seal::Keyring;
use crate::layout::{DRAFTS_DIR, LOCK, PRIVATE_DIR, QUARANTINE_DIR};

const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Why the private folder cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrivateError {
    /// Something of this name is not what kidafs makes.
    Planted {
        /// Its name below the backing directory.
        name: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The system does not do this.
    System {
        /// The name below the backing directory.
        name: &'static str,
        /// What was to be done.
        what: &'static str,
        /// Its reason.
        errno: Errno,
    },
}

impl PrivateError {
    pub(super) fn errno(self) -> Errno {
        match self {
            Self::Planted { .. } => Errno::NOTDIR,
            Self::System { errno, .. } => errno,
        }
    }
}

/// An open directory that is to be served, with its private folder if that was opened and checked already.
#[derive(Debug)]
pub struct Opened {
    /// The directory.
    pub root: OwnedFd,
    /// Its private folder.
    pub private: Option<Private>,
    /// The keys without whose seal nothing is served.
    pub seals: Option<Keyring>,
    /// Whether its group's members are trusted as its owner is.
    pub trust_group: bool,
}

impl From<OwnedFd> for Opened {
    fn from(root: OwnedFd) -> Self {
        Self {
            root,
            private: None,
            seals: None,
            trust_group: false,
        }
    }
}

/// The private folder of a backing directory, with its subfolders.
#[derive(Debug)]
pub struct Private {
    pub(super) drafts: OwnedFd,
    pub(super) quarantine: OwnedFd,
}

/// Whose the private folder is to be: the backing directory's owner's, so that he can remove it, or serve the
/// directory himself after root has.
fn owner_of(root: BorrowedFd<'_>) -> rustix::io::Result<Stat> {
    rustix::fs::fstat(root)
}

/// Opens the private folder of `root`, and makes it if it is missing. The lock in it is the caller's to take.
///
/// # Errors
/// If it is a link, a file or another user's; those of the system. EROFS if it is missing on a filesystem that
/// cannot be written.
pub fn folder(root: BorrowedFd<'_>) -> Result<OwnedFd, PrivateError> {
    set_aside_roots(root)?;
    open(root, root, PRIVATE_DIR, PRIVATE_DIR)
}

/// How many folders of root's can be set aside in one directory.
const MOST_SET_ASIDE: u32 = 100;

/// Makes way for a private folder of this user's in place of one that root's daemon, of an older version, has
/// left in a directory of this user's, who may rename it but not look into it.
fn set_aside_roots(root: BorrowedFd<'_>) -> Result<(), PrivateError> {
    let user = rustix::process::geteuid();
    let found = rustix::fs::statat(root, PRIVATE_DIR, AtFlags::SYMLINK_NOFOLLOW);
    if user.is_root() || !found.is_ok_and(|stat| stat.st_uid == 0) {
        return Ok(());
    }
    let failed = |errno| PrivateError::System {
        name: PRIVATE_DIR,
        what: "rename",
        errno,
    };
    match rustix::fs::unlinkat(root, PRIVATE_DIR, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        // What else it may be is for who opens it.
        _ => return Ok(()),
    }
    for number in 1..MOST_SET_ASIDE {
        let name = format!("{PRIVATE_DIR}.root-{number}");
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(root, PRIVATE_DIR, root, &name, flags) {
            Ok(()) => {
                log::warn!(
                    "{PRIVATE_DIR} was root's and not empty, so it is called {name} now: have root remove it"
                );
                return Ok(());
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Err(failed(Errno::EXIST))
}

impl Private {
    /// Opens the subfolders of `folder`, the private folder of `root`, and makes what is missing.
    ///
    /// # Errors
    /// As [`folder`].
    pub fn open(root: BorrowedFd<'_>, folder: BorrowedFd<'_>) -> Result<Self, PrivateError> {
        Ok(Self {
            drafts: open(root, folder, DRAFTS_DIR, ".kidafs/tmp")?,
            quarantine: open(root, folder, QUARANTINE_DIR, ".kidafs/quarantine")?,
        })
    }
}

fn open(
    root: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    name: &'static str,
    shown: &'static str,
) -> Result<OwnedFd, PrivateError> {
    let system = |what| {
        move |errno| PrivateError::System {
            name: shown,
            what,
            errno,
        }
    };
    let planted = |reason| PrivateError::Planted {
        name: shown,
        reason,
    };
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        // Read-only, but an earlier mount may have left it.
        Ok(()) | Err(Errno::EXIST | Errno::ROFS) => {}
        Err(errno) => return Err(system("create")(errno)),
    }
    let fd =
        rustix::fs::openat(parent, name, OPEN, Mode::empty()).map_err(|errno| match errno {
            // O_DIRECTORY with O_NOFOLLOW says ENOTDIR of a symbolic link.
            Errno::NOTDIR | Errno::LOOP => planted("it is a symbolic link or a file"),
            Errno::NOENT => system("create")(Errno::ROFS),
            Errno::ACCESS if is_foreign(parent, name) => {
                planted("another user owns it: have root give it to you with chown")
            }
            errno => system("open")(errno),
        })?;
    let stat = rustix::fs::fstat(&fd).map_err(system("look at"))?;
    let owner = owner_of(root).map_err(system("look at"))?;
    let user = rustix::process::geteuid().as_raw();
    if stat.st_uid != user && stat.st_uid != owner.st_uid {
        return Err(planted("another user owns it"));
    }
    let change = |result: rustix::io::Result<()>| match result {
        Ok(()) | Err(Errno::ROFS) => Ok(()),
        Err(errno) => Err(system("chmod")(errno)),
    };
    if Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO) {
        change(rustix::fs::fchmod(&fd, Mode::RWXU))?;
    }
    for list in ["system.posix_acl_default", "system.posix_acl_access"] {
        // What is made in it is not to inherit the rights that others have in the directory.
        let _ = rustix::fs::fremovexattr(&fd, list);
    }
    if user == 0 && stat.st_uid != owner.st_uid {
        let (uid, gid) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
        change(rustix::fs::fchown(&fd, Some(uid), Some(gid)))?;
    }
    Ok(fd)
}

fn is_foreign(parent: BorrowedFd<'_>, name: &str) -> bool {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| stat.st_uid != rustix::process::geteuid().as_raw())
}

/// Removes the private folder of `root`, which the caller has locked, unless something is kept in it: after a
/// clean end a backing directory is a plain directory again.
pub fn remove(root: BorrowedFd<'_>, folder: BorrowedFd<'_>) {
    for name in [DRAFTS_DIR, QUARANTINE_DIR] {
        match rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            // Something is kept for people to look at; the next daemon finds the rest.
            Err(_) => return,
        }
    }
    let is_ours = || {
        let own = rustix::fs::fstat(folder)?;
        let named = rustix::fs::statat(root, PRIVATE_DIR, AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::io::Result::Ok((own.st_dev, own.st_ino) == (named.st_dev, named.st_ino))
    };
    if is_ours() == Ok(true) && rustix::fs::unlinkat(folder, LOCK, AtFlags::empty()).is_ok() {
        // Anything else in it stays, with the folder.
        let _ = rustix::fs::unlinkat(root, PRIVATE_DIR, AtFlags::REMOVEDIR);
    }
}

/// Removes the drafts that a daemon which died has left. A directory among them is not ours, and in nobody's way.
pub(super) fn remove_drafts(drafts: &OwnedFd) -> rustix::io::Result<()> {
    for left in names(drafts)? {
        match rustix::fs::unlinkat(drafts, &left, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                if rustix::fs::unlinkat(drafts, &left, AtFlags::REMOVEDIR).is_err() {
                    log::warn!(".kidafs/{DRAFTS_DIR}/{left:?} is not kidafs's own, and left alone");
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The names in an open directory, without `.` and `..`.
pub(super) fn names(dir: impl AsFd) -> rustix::io::Result<Vec<OsString>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let own = rustix::fs::openat(dir, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(own)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}
