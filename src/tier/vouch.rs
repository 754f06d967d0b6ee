//! What root's daemon vouches for: files of other users that were committed through the mount.
//!
//! A file that another user owns, or could write, is not served when it is found (see `owners`). One that he
//! committed through the mount is known, though, as long as it is what he committed. So root's daemon notes the
//! digest of such a file in an attribute that only root can write (`trusted.`, xattr(7)), and a mark on such folders
//! and links.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use rustix::fs::{Stat, XattrFlags};
use rustix::io::Result;

use super::content::DiskFile;
use super::digest::{DIGEST_XATTR, Digest, Signature};
use super::directory::Directory;
use super::disk::DiskTier;
use super::found::{Found, FoundKind};
use super::target::Target;

const VOUCH_XATTR: &str = "trusted.kidafs.vouched";

/// What folders and links carry, which have no content.
const MARK: &[u8] = b"1";

impl DiskTier {
    /// Whether a stranger could write something with this owner and mode.
    fn is_strangers(&self, uid: u32, gid: u32, mode: u32) -> bool {
        !self.trusts(uid) || mode & 0o002 != 0 || mode & 0o020 != 0 && !self.trusts_group(gid)
    }

    fn vouches(&self) -> bool {
        rustix::process::geteuid().is_root()
    }

    fn is_strangers_folder(&self, parent: &OwnedFd) -> bool {
        rustix::fs::fstat(parent)
            .is_ok_and(|stat| self.is_strangers(stat.st_uid, stat.st_gid, stat.st_mode))
    }

    /// Vouches for a draft that is about to get a name in `parent`. What cannot be vouched for is not served by the
    /// next daemon.
    pub(super) fn vouch_draft(&self, fd: &OwnedFd, parent: &OwnedFd) {
        if !self.vouches() {
            return;
        }
        let is_strangers = |stat: Stat| self.is_strangers(stat.st_uid, stat.st_gid, stat.st_mode);
        if !self.is_strangers_folder(parent) && !rustix::fs::fstat(fd).is_ok_and(is_strangers) {
            return;
        }
        let mut stored = [0; 64];
        if let Ok(len) = rustix::fs::fgetxattr(fd, DIGEST_XATTR, &mut stored) {
            let flags = XattrFlags::empty();
            let _ = rustix::fs::fsetxattr(fd, VOUCH_XATTR, &stored[..len], flags);
        }
    }

    /// Vouches for what was made, or given to another owner or mode, through the mount.
    pub(super) fn vouch(&self, parent: &OwnedFd, name: &OsStr) {
        if !self.vouches() {
            return;
        }
        let Ok(target) = self.all.opening(|| Target::open(parent, name)) else {
            return;
        };
        let stat = target.stat();
        let strangers =
            self.is_strangers(stat.st_uid, stat.st_gid, stat.st_mode & !target.link_bits());
        if !strangers && !self.is_strangers_folder(parent) {
            return;
        }
        // Its content is as it was when that was vouched for; what its digest says now its owner may have written.
        if target.xattr(OsStr::new(VOUCH_XATTR)).is_ok() {
            return;
        }
        let value = match target.is_file() {
            true => target.xattr(OsStr::new(DIGEST_XATTR)).ok(),
            false => Some(MARK.to_vec()),
        };
        if let Some(value) = value {
            let _ = target.set_xattr(OsStr::new(VOUCH_XATTR), &value, XattrFlags::empty());
        }
    }

    /// Whether root's daemon has vouched for something in `dir`. The content of a file is compared when it is read.
    pub(super) fn is_vouched(&self, dir: &Directory, found: &Found) -> bool {
        if !self.vouches() {
            return false;
        }
        let read = || -> Result<Vec<u8>> {
            let fd = self.all.get(dir)?;
            let target = self.all.opening(|| Target::open(&*fd, &found.name))?;
            target.xattr(OsStr::new(VOUCH_XATTR))
        };
        read().is_ok_and(|value| match found.kind {
            FoundKind::File => matches!(Signature::from_stored(&value), Signature::Of(..)),
            _ => value == MARK,
        })
    }

    /// Whether an open file's content is what was vouched for, if it was.
    pub fn is_as_vouched(&self, file: &DiskFile, digest: &Digest) -> bool {
        if !self.vouches() {
            return true;
        }
        let mut stored = [0; 64];
        match rustix::fs::fgetxattr(file.fd(), VOUCH_XATTR, &mut stored) {
            Ok(len) => Digest::from_stored(&stored[..len]).as_ref() == Some(digest),
            Err(_) => true,
        }
    }
}
