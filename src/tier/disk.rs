//! The disk tier: the backing directory, reached by descriptors only.
//!
//! After the daemon has mounted over its own backing directory, naming that path would lead back
//! into the mount and deadlock. So everything here starts from a descriptor that was opened before.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, StatVfs, Uid, XattrFlags};
use rustix::io::{Errno, ReadWriteFlags, Result};

use super::digest::{DIGEST_XATTR, Digest};
use super::draft::{Draft, Drafts, Publish};
use super::found::{Found, FoundKind, found, mode, timestamps};
use super::quarantine::Quarantine;
use super::xattr;
use crate::layout::{DRAFTS_DIR, PRIVATE_DIR, QUARANTINE_DIR};

/// What the disk tier is about to do; see [`Faults`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Read content or a directory.
    Read,
    /// Make a draft or a directory.
    Create,
    /// Write content or an attribute.
    Write,
    /// Give a draft its name.
    Publish,
    /// Rename or remove a name.
    Rename,
    /// Flush to the medium.
    Flush,
}

/// Lets a test make the disk tier fail: called before each step, an error is returned in its stead.
pub trait Faults: Send + Sync + std::fmt::Debug {
    /// `Err` makes the step fail.
    fn before(&self, step: Step) -> Result<()>;
}

/// An open directory of the backing directory.
#[derive(Debug)]
pub struct Directory(OwnedFd);

impl Directory {
    /// Wraps an open directory.
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An open backing file.
#[derive(Debug)]
pub struct DiskFile(OwnedFd);

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

/// The backing directory.
#[derive(Debug)]
pub struct DiskTier {
    root: Arc<Directory>,
    /// Where it writes; none if it must not.
    private: Option<Private>,
    /// Whether the backing filesystem has user extended attributes.
    digests: AtomicBool,
    faults: Option<Arc<dyn Faults>>,
    /// The owners and groups that were tried: whether a file can be given to them.
    owners: Mutex<HashMap<(u32, u32), Result<()>>>,
}

/// Owners remembered at the most.
const MAX_OWNERS: usize = 1_024;

/// The folders below [`PRIVATE_DIR`].
#[derive(Debug)]
struct Private {
    drafts: Drafts,
    quarantine: Quarantine,
}

impl Private {
    /// Makes what is missing, and removes what a daemon that died has left.
    fn open(root: &OwnedFd) -> Result<Self> {
        let private = make_private(root, PRIVATE_DIR)?;
        let drafts = make_private(&private, DRAFTS_DIR)?;
        for left in names(&drafts)? {
            rustix::fs::unlinkat(&drafts, &left, AtFlags::empty())?;
        }
        Ok(Self {
            drafts: Drafts::new(drafts),
            quarantine: Quarantine::open(make_private(&private, QUARANTINE_DIR)?)?,
        })
    }
}

fn make_private(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => rustix::fs::openat(parent, name, flags, Mode::empty()),
        Err(error) => Err(error),
    }
}

fn names(dir: impl AsFd) -> Result<Vec<OsString>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let own = rustix::fs::openat(dir, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(own)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !is_dot(name) {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

fn is_dot(name: &[u8]) -> bool {
    name == b"." || name == b".."
}

impl DiskTier {
    /// Takes over the open directory `root`. Unless `read_only`, [`PRIVATE_DIR`] in it is made if it is missing,
    /// and the caller holds the lock on the directory: leftovers of a daemon that died are removed.
    ///
    /// # Errors
    /// Those of the system, and ELOOP or ENOTDIR if something else has the private folder's name.
    pub fn open(root: OwnedFd, read_only: bool, faults: Option<Arc<dyn Faults>>) -> Result<Self> {
        let private = if read_only {
            None
        } else {
            Some(Private::open(&root)?)
        };
        let tier = Self {
            root: Arc::new(Directory(root)),
            private,
            digests: AtomicBool::new(true),
            faults,
            owners: Mutex::default(),
        };
        tier.try_attributes()?;
        Ok(tier)
    }

    /// Finds out whether user extended attributes work here.
    fn try_attributes(&self) -> Result<()> {
        let tried = match &self.private {
            Some(private) => {
                let draft = private.drafts.begin(Mode::RUSR | Mode::WUSR)?;
                draft.set_digest(&Digest::of(b""))
            }
            None => match xattr::get(&*self.root, OsStr::new("."), OsStr::new(DIGEST_XATTR)) {
                Err(Errno::NODATA) | Ok(_) => Ok(()),
                Err(error) => Err(error),
            },
        };
        match tried {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => {
                log::warn!(
                    "the backing filesystem has no user extended attributes: digests are off"
                );
                self.digests.store(false, Ordering::Relaxed);
                Ok(())
            }
            result => result,
        }
    }

    fn writable(&self) -> Result<&Private> {
        self.private.as_ref().ok_or(Errno::ROFS)
    }

    fn step(&self, step: Step) -> Result<()> {
        self.faults
            .as_ref()
            .map_or(Ok(()), |faults| faults.before(step))
    }

    /// The backing directory itself.
    pub fn root(&self) -> Arc<Directory> {
        Arc::clone(&self.root)
    }

    /// Whether entries carry digests here (the backing filesystem has user extended attributes).
    pub fn has_digests(&self) -> bool {
        self.digests.load(Ordering::Relaxed)
    }

    // --- names ---------------------------------------------------------------------------------

    /// Opens the directory `name` in `dir`.
    pub fn open_dir(&self, dir: &Directory, name: &OsStr) -> Result<Directory> {
        self.step(Step::Read)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(dir, name, flags, Mode::empty()).map(Directory)
    }

    /// Everything in `dir`. A name that vanishes meanwhile is left out.
    pub fn list(&self, dir: &Directory) -> Result<Vec<Found>> {
        self.step(Step::Read)?;
        let mut found = Vec::new();
        for name in names(dir)? {
            match self.find(dir, &name) {
                Ok(one) => found.push(one),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// What `name` in `dir` stands for; symbolic links are not followed.
    pub fn find(&self, dir: &Directory, name: &OsStr) -> Result<Found> {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FoundKind::File,
            FileType::Directory => FoundKind::Directory,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
                FoundKind::Symlink(OsStr::from_bytes(target.to_bytes()).to_owned())
            }
            _ => FoundKind::Other,
        };
        Ok(found(name.to_owned(), kind, &stat))
    }

    /// What the backing directory's root is.
    pub fn root_found(&self) -> Result<Found> {
        let stat = rustix::fs::fstat(&*self.root)?;
        Ok(found(OsString::new(), FoundKind::Directory, &stat))
    }

    /// Makes a directory and opens it.
    pub fn make_dir(&self, dir: &Directory, name: &OsStr, bits: u32) -> Result<Directory> {
        self.step(Step::Create)?;
        rustix::fs::mkdirat(dir, name, mode(bits))?;
        // mkdir(2) applies the umask and drops set-id bits.
        rustix::fs::chmodat(dir, name, mode(bits), AtFlags::empty())
            .and_then(|()| self.open_dir(dir, name))
            .inspect_err(|_| {
                // The first error is the one to tell.
                let _ = rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR);
            })
    }

    /// Makes a symbolic link.
    pub fn make_symlink(&self, dir: &Directory, name: &OsStr, target: &OsStr) -> Result<()> {
        self.step(Step::Create)?;
        rustix::fs::symlinkat(target, dir, name)
    }

    /// Removes a file or symbolic link.
    pub fn unlink(&self, dir: &Directory, name: &OsStr) -> Result<()> {
        self.step(Step::Rename)?;
        rustix::fs::unlinkat(dir, name, AtFlags::empty())
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, dir: &Directory, name: &OsStr) -> Result<()> {
        self.step(Step::Rename)?;
        rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
    }

    /// Renames; `exchange` swaps the two names instead.
    pub fn rename(
        &self,
        from: (&Directory, &OsStr),
        to: (&Directory, &OsStr),
        exchange: bool,
    ) -> Result<()> {
        self.step(Step::Rename)?;
        let flags = if exchange {
            RenameFlags::EXCHANGE
        } else {
            RenameFlags::empty()
        };
        rustix::fs::renameat_with(from.0, from.1, to.0, to.1, flags)
    }

    /// Moves a file whose content is wrong into the quarantine, which keeps a bounded number of them.
    pub fn quarantine(&self, dir: &Directory, name: &OsStr) -> Result<()> {
        self.step(Step::Rename)?;
        self.writable()?.quarantine.take(dir, name)
    }

    /// Files in the quarantine.
    pub fn quarantined(&self) -> u64 {
        self.private
            .as_ref()
            .map_or(0, |private| private.quarantine.files())
    }

    // --- content -------------------------------------------------------------------------------

    /// Opens a file for reading, without marking it as read where that is allowed: its access time
    /// is the daemon's to write.
    pub fn open_file(&self, dir: &Directory, name: &OsStr) -> Result<DiskFile> {
        self.step(Step::Read)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty()),
            other => other,
        }
        .map(DiskFile)
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

    /// The digest that an open file carries, if any.
    pub fn digest(&self, file: &DiskFile) -> Result<Option<Digest>> {
        if !self.has_digests() {
            return Ok(None);
        }
        let mut stored = [0; 64];
        match rustix::fs::fgetxattr(&file.0, DIGEST_XATTR, stored.as_mut_slice()) {
            Ok(len) => Ok(Digest::from_stored(&stored[..len])),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives an open file the digest of its content; it had none.
    pub fn sign(&self, file: &DiskFile, digest: &Digest) -> Result<()> {
        self.step(Step::Write)?;
        rustix::fs::fsetxattr(&file.0, DIGEST_XATTR, digest.as_bytes(), XattrFlags::CREATE)
    }

    /// Begins a backing file that has no name yet.
    pub fn begin(&self, bits: u32) -> Result<Draft> {
        self.step(Step::Create)?;
        // Stamping extended attributes takes the right to write, which the mode alone gives an ordinary user.
        self.writable()?
            .drafts
            .begin(mode(bits) | Mode::RUSR | Mode::WUSR)
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
            draft.set_digest(&stamp.digest)?;
        }
        let uid = Some(stamp.uid).filter(|uid| *uid != rustix::process::geteuid().as_raw());
        let gid = Some(stamp.gid).filter(|gid| *gid != rustix::process::getegid().as_raw());
        if uid.is_some() || gid.is_some() {
            rustix::fs::fchown(&draft.fd, uid.map(Uid::from_raw), gid.map(Gid::from_raw))?;
        }
        // After the owner: changing that drops set-id bits.
        rustix::fs::fchmod(&draft.fd, mode(stamp.mode))?;
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
        self.writable()?.drafts.publish(draft, dir, name, how)
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
        rustix::fs::fsync(rustix::fs::openat(dir, ".", flags, Mode::empty())?)
    }

    // --- attributes ----------------------------------------------------------------------------

    /// Changes the permission bits of a file or directory.
    pub fn set_mode(&self, dir: &Directory, name: &OsStr, bits: u32) -> Result<()> {
        self.step(Step::Write)?;
        rustix::fs::chmodat(dir, name, mode(bits), AtFlags::empty())
    }

    /// Changes the owner, the group or both.
    pub fn set_owner(
        &self,
        dir: &Directory,
        name: &OsStr,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<()> {
        self.step(Step::Write)?;
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Changes the times that are given.
    pub fn set_times(
        &self,
        dir: &Directory,
        name: &OsStr,
        atime: Option<SystemTime>,
        mtime: Option<SystemTime>,
    ) -> Result<()> {
        self.step(Step::Write)?;
        rustix::fs::utimensat(
            dir,
            name,
            &timestamps(atime, mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        )
    }

    /// Reads an extended attribute.
    pub fn xattr(&self, dir: &Directory, name: &OsStr, key: &OsStr) -> Result<Vec<u8>> {
        xattr::get(dir, name, key)
    }

    /// Writes an extended attribute; `flags` as in setxattr(2).
    pub fn set_xattr(
        &self,
        dir: &Directory,
        name: &OsStr,
        key: &OsStr,
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        self.step(Step::Write)?;
        xattr::set(dir, name, key, value, flags)
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&self, dir: &Directory, name: &OsStr, key: &OsStr) -> Result<()> {
        self.step(Step::Write)?;
        xattr::remove(dir, name, key)
    }

    /// The names of the extended attributes.
    pub fn xattrs(&self, dir: &Directory, name: &OsStr) -> Result<Vec<OsString>> {
        xattr::list(dir, name)
    }

    /// Space on the backing filesystem.
    pub fn space(&self) -> Result<StatVfs> {
        rustix::fs::fstatvfs(&*self.root)
    }
}

/// The attributes that a draft is given before it gets its name.
#[derive(Debug)]
pub struct Stamp<'a> {
    /// Of the whole content.
    pub digest: Digest,
    /// Permission bits.
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
