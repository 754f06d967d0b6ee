//! The disk tier's part for seals: made when a file gets its name, checked when it is read.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::XattrFlags;
use rustix::io::{Errno, Result};

use super::content::DiskFile;
use super::digest::{DIGEST_XATTR, Digest, Edition, Signature};
use super::directory::Directory;
use super::disk::DiskTier;
use super::found::{Found, FoundKind};
use super::private;
use super::seal::{SEAL_XATTR, Sealed};
use super::target::Target;

/// A file of which the seal was found right before it is changed, so that it may be sealed anew.
#[derive(Debug)]
pub(super) struct Right {
    digest: Digest,
    edition: Edition,
}

/// What became of a file that was to be blessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blessed {
    /// It has a new seal.
    Sealed,
    /// It had a right one.
    Already,
    /// Its seal is by no key of the file, or not right.
    Unsealed,
    /// Its content is not what its digest says.
    Damaged,
}

fn path_of(dir: &Directory, name: &OsStr) -> Vec<u8> {
    let mut path = dir.path();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.as_bytes());
    path
}

impl DiskTier {
    /// Whether nothing is served without a right seal.
    pub fn is_sealed(&self) -> bool {
        self.seals.is_some()
    }

    /// Seals a draft for the name that it is about to get.
    pub(super) fn seal_draft(
        &self,
        fd: &OwnedFd,
        (digest, edition): &(Digest, Edition),
        dir: &Directory,
        name: &OsStr,
    ) -> Result<()> {
        let Some(seals) = &self.seals else {
            return Ok(());
        };
        let sealed = Sealed {
            path: &path_of(dir, name),
            edition: *edition,
            digest,
        };
        let stored = seals.seal(&sealed);
        rustix::fs::fsetxattr(fd, SEAL_XATTR, &stored, XattrFlags::empty())
    }

    /// Whether an open file has a right seal for this content under this name. True where there are no seals.
    pub fn is_rightly_sealed(
        &self,
        file: &DiskFile,
        (dir, name): (&Directory, &OsStr),
        found: &Found,
        digest: &Digest,
    ) -> Result<bool> {
        let Some(seals) = &self.seals else {
            return Ok(true);
        };
        let mut stored = [0; 64];
        let len = match rustix::fs::fgetxattr(file.fd(), SEAL_XATTR, &mut stored) {
            Ok(len) => len,
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => return Ok(false),
            Err(error) => return Err(error),
        };
        let _still = self.all.still();
        let sealed = Sealed {
            path: &path_of(dir, name),
            edition: self.edition_of(found),
            digest,
        };
        Ok(seals.verify(&stored[..len], &sealed))
    }

    /// What of a file has to be sealed anew once its path or its time is changed; `None`: it has no right seal now.
    pub(super) fn right(&self, target: &Target, path: &[u8]) -> Option<Right> {
        let seals = self.seals.as_ref()?;
        let stored = target.xattr(OsStr::new(SEAL_XATTR)).ok()?;
        let signed = target.xattr(OsStr::new(DIGEST_XATTR)).ok()?;
        let Signature::Of(digest, _) = Signature::from_stored(&signed) else {
            return None;
        };
        let edition = self.edition_before(target);
        let sealed = Sealed {
            path,
            edition,
            digest: &digest,
        };
        seals
            .verify(&stored, &sealed)
            .then_some(Right { digest, edition })
    }

    /// Seals anew what was right, under another path or time.
    pub(super) fn seal_again(
        &self,
        target: &Target,
        right: &Right,
        path: &[u8],
        edition: Option<Edition>,
    ) -> Result<()> {
        let Some(seals) = &self.seals else {
            return Ok(());
        };
        let sealed = Sealed {
            path,
            edition: edition.unwrap_or(right.edition),
            digest: &right.digest,
        };
        let stored = seals.seal(&sealed);
        target.set_xattr(OsStr::new(SEAL_XATTR), &stored, XattrFlags::empty())
    }

    pub(super) fn right_at(&self, dir: &Directory, name: &OsStr, target: &Target) -> Option<Right> {
        self.right(target, &path_of(dir, name))
    }

    pub(super) fn seal_again_at(
        &self,
        target: &Target,
        right: &Right,
        (dir, name): (&Directory, &OsStr),
        edition: Option<Edition>,
    ) -> Result<()> {
        self.seal_again(target, right, &path_of(dir, name), edition)
    }

    /// Seals a renamed file, or all that is below a renamed directory, for where it is now, as far as it was sealed
    /// for where it was. What cannot be is missing from then on.
    pub(super) fn reseal(&self, parent: &OwnedFd, name: &OsStr, old: &[u8], new: &[u8]) {
        if self.seals.is_none() {
            return;
        }
        if let Err(error) = self.try_reseal(parent, name, old, new) {
            log::error!("{name:?} cannot be sealed for its new name: {error}");
        }
    }

    fn try_reseal(&self, parent: &OwnedFd, name: &OsStr, old: &[u8], new: &[u8]) -> Result<()> {
        let target = self.all.opening(|| Target::open(parent, name))?;
        if !target.is_directory() {
            return match self.right(&target, old) {
                Some(right) => self.seal_again(&target, &right, new, None),
                None => Ok(()),
            };
        }
        let folder = target.into_fd();
        for name in self.all.opening(|| private::names(folder.as_fd()))? {
            let below = |above: &[u8]| [above, b"/", name.as_bytes()].concat();
            self.try_reseal(&folder, &name, &below(old), &below(new))?;
        }
        Ok(())
    }

    /// The path of a name, as seals have it.
    pub(super) fn sealed_path(dir: &Directory, name: &OsStr) -> Vec<u8> {
        path_of(dir, name)
    }

    /// Gives a file a seal by the first key, for `kidafs seal`. `rekey`: only if it has a right one by another key.
    ///
    /// # Errors
    /// Those of the system.
    pub fn bless(&self, dir: &Directory, name: &OsStr, rekey: bool) -> Result<Blessed> {
        let Some(seals) = &self.seals else {
            return Err(Errno::INVAL);
        };
        let file = self.open_file(dir, name)?;
        let found = self.look(&file)?;
        let digest = self.digest_whole(&file, super::Patience::Any)?;
        match self.signature(&file)? {
            Signature::Malformed => return Ok(Blessed::Damaged),
            Signature::Of(signed, edition) if signed != digest => {
                let now = self.edition_of(&found);
                if !edition.is_some_and(|edition| edition.was_changed(&now)) {
                    return Ok(Blessed::Damaged);
                }
            }
            Signature::Of(..) | Signature::None => {}
        }
        let fd = self.all.get(dir)?;
        let target = self.all.opening(|| Target::open(&*fd, name))?;
        let is_right = self.is_rightly_sealed(&file, (dir, name), &found, &digest)?;
        if is_right {
            let stored = target.xattr(OsStr::new(SEAL_XATTR))?;
            if seals.is_first(&stored) {
                return Ok(Blessed::Already);
            }
        }
        if rekey && !is_right {
            return Ok(Blessed::Unsealed);
        }
        if found.kind != FoundKind::File {
            return Ok(Blessed::Unsealed);
        }
        self.sign(&file, &digest, &found)?;
        let draft = (digest, self.edition_of(&found));
        self.seal_draft(file.fd(), &draft, dir, name)?;
        Ok(Blessed::Sealed)
    }
}
