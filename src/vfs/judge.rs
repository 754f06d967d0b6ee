//! What a file on disk is worth: judged by the digest that it carries, or by its form.

use std::ffi::OsStr;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::Vfs;
use super::attr::Attr;
use super::error::{Error, Result};
use super::node::{Node, Place};
use super::notice::Notice;
use crate::format;
use crate::tier::{Digest, DiskFile, Found, Patience, Signature};

/// What a digest says about the file that carries it.
pub(super) enum Judgement {
    /// It is as it was signed.
    Sound,
    /// It is not.
    Damaged,
    /// It says nothing: there is none, or it is of an earlier edition.
    New,
}

impl Vfs {
    /// Judges an open file by the digest that it carries.
    ///
    /// An entry is never changed in place, since its name says what it was compiled from: whatever does not match
    /// its digest is damage. Of every other file a later edition than the one that was signed is a new file.
    pub(super) fn judge(
        &self,
        file: &DiskFile,
        name: &OsStr,
        found: &Found,
        digest: impl FnOnce() -> Result<Digest>,
    ) -> Result<Judgement> {
        let (signed, edition) = match self.disk.signature(file)? {
            Signature::None => return Ok(Judgement::New),
            Signature::Malformed => return Ok(Judgement::Damaged),
            Signature::Of(signed, edition) => (signed, edition),
        };
        if signed == digest()? {
            return Ok(Judgement::Sound);
        }
        let changed =
            edition.is_some_and(|edition| edition.was_changed(&self.disk.edition_of(found)));
        Ok(
            match changed && self.config.pattern.parse_name(name).is_none() {
                true => Judgement::New,
                false => Judgement::Damaged,
            },
        )
    }

    fn digest_whole(&self, file: &DiskFile, patience: Patience) -> Result<Digest> {
        self.disk
            .digest_whole(file, patience)
            .map_err(|errno| match (errno, patience) {
                (Errno::AGAIN, Patience::None) => Error::WouldWait,
                _ => Error::from(errno),
            })
    }

    /// Checks a file that is too large to be kept, piece by piece, unless it is the same as when that was done.
    pub(super) fn check_large(
        &self,
        node: &Node,
        place: &Place,
        file: &DiskFile,
        found: &Found,
        patience: Patience,
    ) -> Result<()> {
        let name = &*place.name;
        let known = {
            let attr = node.meta.lock().attr;
            self.disk.edition(attr.size, attr.mtime)
        };
        if node.is_checked() && known == self.disk.edition_of(found) {
            return Ok(());
        }
        let digest = || self.digest_whole(file, patience);
        if self.disk.is_sealed() {
            return self.check_seal(file, place, found, &digest()?);
        }
        match self.judge(file, name, found, digest)? {
            Judgement::Sound => Ok(()),
            Judgement::Damaged => Err(Error::Corrupt),
            // Too large to be looked at, and no entry of such a size was ever committed here.
            Judgement::New if self.config.pattern.parse_name(name).is_some() => {
                Err(Error::TooLarge)
            }
            Judgement::New => Ok(()),
        }
    }

    /// Nothing is adopted where there are seals: not even what nobody's is.
    pub(super) fn check_seal(
        &self,
        file: &DiskFile,
        place: &Place,
        found: &Found,
        digest: &Digest,
    ) -> Result<()> {
        let folder = place.parent.folder();
        let at = (&folder.disk, &*place.name);
        match self.disk.is_rightly_sealed(file, at, found, digest)? {
            true => Ok(()),
            false => Err(Error::Unsealed),
        }
    }

    /// Checks a file that has lost its name before anything of it was read.
    pub(super) fn check_held(
        &self,
        node: &Node,
        file: &DiskFile,
        patience: Patience,
    ) -> Result<()> {
        if node.is_checked() {
            return Ok(());
        }
        if self.disk.is_sealed() {
            // Its seal was for the path that it had.
            return Err(Error::Unsealed);
        }
        let found = self.disk.look(file)?;
        let digest = || self.digest_whole(file, patience);
        match self.judge(file, OsStr::new(""), &found, digest)? {
            Judgement::Damaged => Err(Error::Corrupt),
            Judgement::Sound | Judgement::New => {
                node.verified.store(true, Ordering::Release);
                Ok(())
            }
        }
    }

    /// Has the tree and the kernel know a file that was changed beneath, since `before` was true of it.
    pub(super) fn follow(&self, node: &Node, before: &Attr, file: &Found) {
        let known = self.disk.edition(before.size, before.mtime);
        if known == self.disk.edition_of(file) {
            return;
        }
        {
            let mut meta = node.meta.lock();
            if (meta.attr.size, meta.attr.mtime) != (before.size, before.mtime) {
                return;
            }
            meta.attr.size = file.size;
            meta.attr.mtime = file.mtime;
            meta.attr.ctime = file.ctime;
        }
        if self.is_on_disk(node) {
            self.charge(node, file.size);
        }
        self.notices.send(Notice::Inode { ino: node.ino });
    }

    /// Judges content without a digest of its own by its form: it was written to the plain directory while no
    /// daemon was there. What is whole is given a digest; false: it is not.
    pub(super) fn adopt_content(
        &self,
        file: &DiskFile,
        name: &OsStr,
        found: &Found,
        bytes: &[u8],
    ) -> bool {
        if let Some(entry) = self.config.pattern.parse_name(name)
            && !is_whole(&entry, bytes)
        {
            return false;
        }
        if self.disk.has_digests()
            && !self.config.read_only
            && let Err(error) = self.disk.sign(file, &Digest::of(bytes), found)
        {
            log::debug!("{name:?} gets no digest: {error}");
        }
        true
    }
}

/// Whether an entry is framed as it should be and its code would unmarshal. Streams of interpreters
/// that the reader does not know pass, and so do the formats of later engines.
fn is_whole(name: &format::EntryName<'_>, bytes: &[u8]) -> bool {
    format::is_unknown_format(bytes)
        || format::Entry::parse(bytes)
            .is_ok_and(|entry| !name.is_readable() || format::marshal::check(entry.code).is_ok())
}
