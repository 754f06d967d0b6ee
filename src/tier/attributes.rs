//! The disk tier's part for attributes: each is changed by a descriptor of what the name stands for.

use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use rustix::fs::XattrFlags;
use rustix::io::{Errno, Result};

use super::acl;
use super::digest::{DIGEST_XATTR, Edition, Signature};
use super::directory::Directory;
use super::disk::{DiskTier, Step};
use super::found::{directory_mode, file_mode, timestamps};
use super::target::{Known, Target, Thing};

impl DiskTier {
    fn target(&self, dir: &Directory, name: &OsStr) -> Result<Target> {
        let fd = self.all.get(dir)?;
        self.all.opening(|| Target::open(&*fd, name))
    }

    /// Changes the permission bits of a file or directory. Set-id bits of a file are not kept. Returns the bits as
    /// they are to be served: not more than an access control list gives to anybody.
    ///
    /// # Errors
    /// ESTALE if the name stands for something else than is known; those of the system.
    pub fn set_mode(&self, dir: &Directory, name: &OsStr, known: Known, bits: u32) -> Result<u32> {
        self.step(Step::Write)?;
        let mode = match known.kind {
            Thing::Directory => directory_mode(bits),
            Thing::File | Thing::Symlink => file_mode(bits),
        };
        let target = self.target(dir, name)?.check(known)?;
        target.set_mode(mode)?;
        self.vouch(&*self.all.get(dir)?, name);
        let acl = acl::read(|list| target.xattr(list), acl::ACCESS)?;
        Ok(acl.map_or(bits, |acl| acl.strict_bits() | bits & 0o7000))
    }

    /// Changes the owner, the group or both.
    ///
    /// # Errors
    /// As [`DiskTier::set_mode`].
    pub fn set_owner(
        &self,
        dir: &Directory,
        name: &OsStr,
        known: Known,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<()> {
        self.step(Step::Write)?;
        self.target(dir, name)?.check(known)?.set_owner(uid, gid)?;
        self.vouch(&*self.all.get(dir)?, name);
        Ok(())
    }

    /// Changes the times that are given. A digest goes with the file as it is then.
    ///
    /// # Errors
    /// As [`DiskTier::set_mode`].
    pub fn set_times(
        &self,
        dir: &Directory,
        name: &OsStr,
        known: Known,
        atime: Option<SystemTime>,
        mtime: Option<SystemTime>,
    ) -> Result<()> {
        self.step(Step::Write)?;
        let target = self.target(dir, name)?.check(known)?;
        let right = self.right_at(dir, name, &target);
        target.set_times(&timestamps(atime, mtime))?;
        let Some(mtime) = mtime.filter(|_| known.kind == Thing::File) else {
            return Ok(());
        };
        self.keep_signed(&target, mtime)?;
        match right {
            Some(right) => {
                let size = u64::try_from(target.stat().st_size).unwrap_or(0);
                let edition = Some(self.edition(size, mtime));
                self.seal_again_at(&target, &right, (dir, name), edition)
            }
            None => Ok(()),
        }
    }

    /// The time was set by who may set it: the file is no later edition for that.
    fn keep_signed(&self, target: &Target, mtime: SystemTime) -> Result<()> {
        if !self.has_digests() {
            return Ok(());
        }
        let stored = match target.xattr(OsStr::new(DIGEST_XATTR)) {
            Ok(stored) => stored,
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(()),
            Err(error) => return Err(error),
        };
        let Signature::Of(digest, Some(signed)) = Signature::from_stored(&stored) else {
            return Ok(());
        };
        let before: Edition = self.edition_before(target);
        if signed.was_changed(&before) {
            return Ok(());
        }
        let stored = Signature::stored(&digest, &self.edition(signed.size(), mtime));
        target.set_xattr(OsStr::new(DIGEST_XATTR), &stored, XattrFlags::REPLACE)
    }

    pub(super) fn edition_before(&self, target: &Target) -> Edition {
        let stat = target.stat();
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.edition(size, super::found::mtime(stat))
    }

    /// Reads an extended attribute.
    pub fn xattr(&self, dir: &Directory, name: &OsStr, key: &OsStr) -> Result<Vec<u8>> {
        self.target(dir, name)?.xattr(key)
    }

    /// Writes an extended attribute; `flags` as in setxattr(2).
    ///
    /// # Errors
    /// As [`DiskTier::set_mode`].
    pub fn set_xattr(
        &self,
        dir: &Directory,
        name: &OsStr,
        known: Known,
        (key, value): (&OsStr, &[u8]),
        flags: XattrFlags,
    ) -> Result<()> {
        self.step(Step::Write)?;
        let target = self.target(dir, name)?.check(known)?;
        target.set_xattr(key, value, flags)
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// As [`DiskTier::set_mode`].
    pub fn remove_xattr(
        &self,
        dir: &Directory,
        name: &OsStr,
        known: Known,
        key: &OsStr,
    ) -> Result<()> {
        self.step(Step::Write)?;
        self.target(dir, name)?.check(known)?.remove_xattr(key)
    }

    /// The names of the extended attributes.
    pub fn xattrs(&self, dir: &Directory, name: &OsStr) -> Result<Vec<OsString>> {
        self.target(dir, name)?.xattrs()
    }
}
