//! The disk tier's part for content: backing files that are read, and drafts that become such files.

use std::ffi::{OsStr, OsString};
use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use rustix::fs::{Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::{Errno, ReadWriteFlags, Result};

use super::digest::{DIGEST_XATTR, Digest, Digester, Edition, Signature};
use super::directory::Directory;
use super::disk::{DiskTier, MAX_OWNERS, Step};
use super::draft::{Draft, Publish};
use super::found::{Found, FoundKind, file_mode, found, timestamps};

/// What is read at once of content that is not kept.
const PIECE: usize = 1 << 18;

/// An open backing file.
#[derive(Debug)]
pub struct DiskFile(OwnedFd);

impl DiskFile {
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.0
    }
}

/// Whether a read may wait for the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It may.
    Any,
    /// It may not: only what the page cache has is read.
    None,
}

fn read_some(file: &OwnedFd, bytes: &mut [u8], offset: u64, patience: Patience) -> Result<usize> {
    if patience == Patience::None {
        let mut slices = [IoSliceMut::new(bytes)];
        match rustix::io::preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT) {
            // A filesystem that has no such reads: tmpfs on some kernels, which never waits anyway.
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {}
            result => return result,
        }
    }
    rustix::io::pread(file, bytes, offset)
}

impl DiskTier {
    /// Opens a file for reading, without marking it as read where that is allowed: its access time
    /// is the daemon's to write.
    pub fn open_file(&self, dir: &Directory, name: &OsStr) -> Result<DiskFile> {
        self.step(Step::Read)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = self.all.get(dir)?;
        let open = || match rustix::fs::openat(&*fd, name, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => rustix::fs::openat(&*fd, name, flags, Mode::empty()),
            other => other,
        };
        self.all.opening(open).map(DiskFile)
    }

    /// Reads up to `len` bytes from `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// EAGAIN with [`Patience::None`] if the medium would have to be waited for.
    pub fn read(
        &self,
        file: &DiskFile,
        offset: u64,
        len: usize,
        patience: Patience,
    ) -> Result<Vec<u8>> {
        self.step(Step::Read)?;
        let mut content = vec![0; len];
        let mut got = 0;
        while got < len {
            match read_some(&file.0, &mut content[got..], offset + got as u64, patience) {
                Ok(0) => break,
                Ok(count) => got += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        content.truncate(got);
        Ok(content)
    }

    /// The size in bytes of an open file.
    pub fn size(&self, file: &DiskFile) -> Result<u64> {
        Ok(u64::try_from(rustix::fs::fstat(&file.0)?.st_size).unwrap_or(0))
    }

    /// What an open file is, with an empty name.
    pub fn look(&self, file: &DiskFile) -> Result<Found> {
        let stat = rustix::fs::fstat(&file.0)?;
        Ok(found(OsString::new(), FoundKind::File, &stat))
    }

    /// Which edition a file is that was found.
    pub fn edition_of(&self, found: &Found) -> Edition {
        self.edition(found.size, found.mtime)
    }

    /// The digest that an open file carries.
    pub fn signature(&self, file: &DiskFile) -> Result<Signature> {
        if !self.has_digests() {
            return Ok(Signature::None);
        }
        let mut stored = [0; 64];
        match rustix::fs::fgetxattr(&file.0, DIGEST_XATTR, stored.as_mut_slice()) {
            Ok(len) => Ok(Signature::from_stored(&stored[..len])),
            Err(Errno::RANGE) => Ok(Signature::Malformed),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(Signature::None),
            Err(error) => Err(error),
        }
    }

    /// Gives an open file the digest of its content, in place of what it had. `found` is the file as it was
    /// before it was read: who changes it meanwhile makes a later edition of it.
    pub fn sign(&self, file: &DiskFile, digest: &Digest, found: &Found) -> Result<()> {
        self.step(Step::Write)?;
        let stored = Signature::stored(digest, &self.edition_of(found));
        rustix::fs::fsetxattr(&file.0, DIGEST_XATTR, &stored, XattrFlags::empty())
    }

    /// The digest of an open file's whole content, read in pieces.
    ///
    /// # Errors
    /// EAGAIN with [`Patience::None`]: this waits for the medium.
    pub fn digest_whole(&self, file: &DiskFile, patience: Patience) -> Result<Digest> {
        if patience == Patience::None {
            return Err(Errno::AGAIN);
        }
        let mut digester = Digester::default();
        loop {
            let piece = self.read(file, digester.seen(), PIECE, patience)?;
            if piece.is_empty() {
                return Ok(digester.finish());
            }
            digester.update(&piece);
        }
    }

    /// Begins a backing file that has no name yet.
    pub fn begin(&self, bits: u32) -> Result<Draft> {
        self.step(Step::Create)?;
        // Stamping extended attributes takes the right to write, which the mode alone gives an ordinary user.
        let drafts = &self.writable()?.drafts;
        self.all
            .opening(|| drafts.begin(file_mode(bits) | Mode::RUSR | Mode::WUSR))
    }

    /// Whether a file can be given to user `uid` and group `gid`: tried once with an empty draft, since it depends on
    /// capabilities, groups, user namespaces and the filesystem.
    ///
    /// # Errors
    /// EPERM; EOVERFLOW for a user or group that is not known in this user namespace.
    pub fn can_give_to(&self, uid: u32, gid: u32) -> Result<()> {
        if (uid, gid)
            == (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            )
        {
            return Ok(());
        }
        if let Some(known) = self.owners.lock().get(&(uid, gid)) {
            return *known;
        }
        let Ok(draft) = self.begin(0o600) else {
            // For another reason, which the commit will tell.
            return Ok(());
        };
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        let given = match rustix::fs::fchown(&draft.fd, owner.0, owner.1) {
            Err(Errno::INVAL) => Err(Errno::OVERFLOW),
            Err(Errno::PERM) => Err(Errno::PERM),
            _ => Ok(()),
        };
        let mut owners = self.owners.lock();
        if owners.len() >= MAX_OWNERS {
            owners.clear();
        }
        owners.insert((uid, gid), given);
        given
    }

    /// Writes all of `bytes` at `offset`.
    pub fn write(&self, draft: &Draft, mut bytes: &[u8], mut offset: u64) -> Result<()> {
        self.step(Step::Write)?;
        while !bytes.is_empty() {
            match rustix::io::pwrite(&draft.fd, bytes, offset) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => {
                    bytes = &bytes[count..];
                    offset += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Stamps a draft's attributes: digest, owner where it is not the daemon, mode, times.
    pub fn finish(&self, draft: &Draft, stamp: &Stamp<'_>) -> Result<()> {
        self.step(Step::Write)?;
        for (key, value) in stamp.xattrs {
            rustix::fs::fsetxattr(&draft.fd, key.as_os_str(), value, XattrFlags::empty())?;
        }
        if self.has_digests() {
            let edition = self.edition(stamp.size, stamp.mtime);
            draft.set_digest(&stamp.digest, &edition)?;
            *draft.signed.lock() = Some((stamp.digest, edition));
        }
        if let Some((uid, gid)) = self.foreign((stamp.uid, stamp.gid)) {
            rustix::fs::fchown(&draft.fd, uid, gid)?;
        }
        rustix::fs::fchmod(&draft.fd, file_mode(stamp.mode))?;
        rustix::fs::futimens(&draft.fd, &timestamps(Some(stamp.atime), Some(stamp.mtime)))
    }

    /// Gives a draft its name, atomically.
    ///
    /// # Errors
    /// EEXIST with [`Publish::New`] if the name is taken; after an error the draft is as it was.
    pub fn publish(
        &self,
        draft: &mut Draft,
        dir: &Directory,
        name: &OsStr,
        how: Publish,
    ) -> Result<()> {
        self.step(Step::Publish)?;
        let fd = self.all.get(dir)?;
        let drafts = &self.writable()?.drafts;
        self.vouch_draft(&draft.fd, &fd);
        if !self.is_sealed() {
            return drafts.publish(draft, &*fd, name, how);
        }
        // The seal is for the path that it then has.
        let _still = self.all.still();
        let signed = (*draft.signed.lock()).ok_or(Errno::OPNOTSUPP)?;
        self.seal_draft(&draft.fd, &signed, dir, name)?;
        drafts.publish(draft, &*fd, name, how)
    }

    // --- durability ----------------------------------------------------------------------------

    /// Flushes a draft's content and attributes to the medium.
    pub fn flush_draft(&self, draft: &Draft) -> Result<()> {
        self.step(Step::Flush)?;
        rustix::fs::fsync(&draft.fd)
    }

    /// Flushes an open file to the medium.
    pub fn flush_file(&self, file: &DiskFile) -> Result<()> {
        self.step(Step::Flush)?;
        rustix::fs::fsync(&file.0)
    }

    /// Flushes a directory's names to the medium.
    pub fn flush_dir(&self, dir: &Directory) -> Result<()> {
        self.step(Step::Flush)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = self.all.get(dir)?;
        let open = || rustix::fs::openat(&*fd, ".", flags, Mode::empty());
        rustix::fs::fsync(self.all.opening(open)?)
    }
}

/// The attributes that a draft is given before it gets its name.
#[derive(Debug)]
pub struct Stamp<'a> {
    /// Of the whole content.
    pub digest: Digest,
    /// Size of the content in bytes.
    pub size: u64,
    /// Permission bits. Set-id bits are not kept: nothing in a cache is a program.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last use.
    pub atime: SystemTime,
    /// Last change of the content.
    pub mtime: SystemTime,
    /// Extended attributes beside the digest.
    pub xattrs: &'a [(OsString, Vec<u8>)],
}
