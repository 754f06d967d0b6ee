//! Changing what a name stands for: by a descriptor of the thing itself, after a look at what it is.
//!
//! A name can be given to something else between two system calls, by whoever may write the directory. So the
//! name is resolved once, without following a link (`O_PATH | O_NOFOLLOW`), what was found is compared with what
//! is known of it, and every change is made by the descriptor. A call that takes a path only (chmod, extended
//! attributes) gets the descriptor's own below `/proc/self/fd`, which leads to the thing that is open.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timestamps, Uid, XattrFlags};
use rustix::io::{Errno, Result};

/// A generous limit: the kernel's own is 64 KiB for a value and for the list (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const LIMIT: usize = 65_536;

/// What a name is known to stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// What it is.
    pub kind: Thing,
    /// Its owner.
    pub uid: u32,
}

/// A kind of file that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

impl Thing {
    fn of(stat: &Stat) -> Option<Self> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Some(Self::File),
            FileType::Directory => Some(Self::Directory),
            FileType::Symlink => Some(Self::Symlink),
            _ => None,
        }
    }
}

/// Something in the backing directory, held by a descriptor that gives no access to its content.
#[derive(Debug)]
pub(super) struct Target {
    fd: OwnedFd,
    stat: Stat,
}

impl Target {
    /// What `name` in `dir` stands for.
    pub(super) fn open(dir: impl AsFd, name: &OsStr) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Self { fd, stat })
    }

    /// ESTALE if it is not what is known.
    pub(super) fn check(self, known: Known) -> Result<Self> {
        let same = Thing::of(&self.stat) == Some(known.kind) && self.stat.st_uid == known.uid;
        same.then_some(self).ok_or(Errno::STALE)
    }

    pub(super) fn stat(&self) -> &Stat {
        &self.stat
    }

    pub(super) fn is_file(&self) -> bool {
        Thing::of(&self.stat) == Some(Thing::File)
    }

    /// The bits of the mode that mean nothing: all that a link has.
    pub(super) fn link_bits(&self) -> u32 {
        match Thing::of(&self.stat) {
            Some(Thing::Symlink) => 0o777,
            _ => 0,
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        Thing::of(&self.stat) == Some(Thing::Directory)
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    pub(super) fn set_mode(&self, mode: Mode) -> Result<()> {
        // fchmod(2) refuses a descriptor of this kind, and fchmodat2(2) is not to be had before Linux 6.6.
        rustix::fs::chmod(self.path(), mode)
    }

    pub(super) fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        rustix::fs::chownat(&self.fd, "", uid, gid, AtFlags::EMPTY_PATH)
    }

    pub(super) fn set_times(&self, times: &Timestamps) -> Result<()> {
        match rustix::fs::utimensat(&self.fd, "", times, AtFlags::EMPTY_PATH) {
            // Linux before 5.8.
            Err(Errno::INVAL | Errno::NOENT) => {
                rustix::fs::utimensat(CWD, self.path(), times, AtFlags::empty())
            }
            other => other,
        }
    }

    pub(super) fn xattr(&self, key: &OsStr) -> Result<Vec<u8>> {
        let mut value = vec![0; LIMIT];
        let len = rustix::fs::getxattr(self.path(), key, value.as_mut_slice())?;
        value.truncate(len);
        Ok(value)
    }

    pub(super) fn set_xattr(&self, key: &OsStr, value: &[u8], flags: XattrFlags) -> Result<()> {
        rustix::fs::setxattr(self.path(), key, value, flags)
    }

    pub(super) fn remove_xattr(&self, key: &OsStr) -> Result<()> {
        rustix::fs::removexattr(self.path(), key)
    }

    pub(super) fn xattrs(&self) -> Result<Vec<OsString>> {
        let mut keys = vec![0; LIMIT];
        let len = rustix::fs::listxattr(self.path(), keys.as_mut_slice())?;
        Ok(keys[..len]
            .split(|byte| *byte == 0)
            .filter(|key| !key.is_empty())
            .map(|key| OsStr::from_bytes(key).to_owned())
            .collect())
    }
}
