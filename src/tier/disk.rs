//! The disk tier: the backing directory, reached by descriptors only.
//!
//! After the daemon has mounted over its own backing directory, naming that path would lead back
//! into the mount and deadlock. So everything here starts from a descriptor that was opened before.
//! What is done to names is here; content is in `content`, attributes are in `attributes`.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, StatVfs};
use rustix::io::{Errno, Result};

use super::acl;
use super::digest::{DIGEST_XATTR, Digest, Edition};
use super::directory::{Descriptors, Directory};
use super::draft::Drafts;
use super::found::{Found, FoundKind, directory_mode, found, timestamps};
use super::owners::{Stranger, Trusted, Way};
use super::private::{self, Opened, Private};
use super::quarantine::Quarantine;
use super::seal::Keyring;
use super::target::{Known, Target, Thing};
use crate::stop::Stop;

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

/// The backing directory.
#[derive(Debug)]
pub struct DiskTier {
    pub(super) all: Arc<Descriptors>,
    root: Directory,
    /// Where it writes; none if it must not.
    workshop: Option<Workshop>,
    /// Whether the backing filesystem has user extended attributes.
    digests: AtomicBool,
    /// The steps in which the backing filesystem keeps times, in nanoseconds.
    time_unit: AtomicI64,
    faults: Option<Arc<dyn Faults>>,
    pub(super) seals: Option<Keyring>,
    trusted: Trusted,
    /// The owners and groups that were tried: whether a file can be given to them.
    pub(super) owners: Mutex<HashMap<(u32, u32), Result<()>>>,
}

/// Owners remembered at the most.
pub(super) const MAX_OWNERS: usize = 1_024;

/// What is kept in the private folder.
#[derive(Debug)]
pub(super) struct Workshop {
    pub(super) drafts: Drafts,
    quarantine: Quarantine,
}

impl Workshop {
    /// Removes what a daemon that died has left.
    fn open(root: &OwnedFd, private: Option<Private>) -> Result<Self> {
        use std::os::fd::AsFd;
        let private = match private {
            Some(private) => private,
            None => {
                let folder = private::folder(root.as_fd()).map_err(private::PrivateError::errno)?;
                Private::open(root.as_fd(), folder.as_fd()).map_err(private::PrivateError::errno)?
            }
        };
        private::remove_drafts(&private.drafts)?;
        Ok(Self {
            drafts: Drafts::new(private.drafts),
            quarantine: Quarantine::open(private.quarantine)?,
        })
    }
}

impl DiskTier {
    /// Takes over an open directory. Unless `read_only`, the private folder in it is made if it is missing,
    /// and the caller holds the lock on the directory: leftovers of a daemon that died are removed.
    ///
    /// # Errors
    /// Those of the system, and ENOTDIR if something else has the private folder's name.
    pub fn open(opened: Opened, read_only: bool, faults: Option<Arc<dyn Faults>>) -> Result<Self> {
        let workshop = if read_only {
            None
        } else {
            Some(Workshop::open(&opened.root, opened.private)?)
        };
        let stat = rustix::fs::fstat(&opened.root)?;
        let trusted = match opened.trust_group {
            true => Trusted::with_group(stat.st_uid, stat.st_gid),
            false => Trusted::with_owner(stat.st_uid),
        };
        let (all, root) = Descriptors::new(opened.root)?;
        let tier = Self {
            all,
            root,
            workshop,
            digests: AtomicBool::new(true),
            time_unit: AtomicI64::new(1),
            faults,
            seals: opened.seals,
            trusted,
            owners: Mutex::default(),
        };
        tier.try_attributes()?;
        if tier.is_sealed() && !tier.has_digests() {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(tier)
    }

    /// Finds out whether user extended attributes work here, and how exact times are.
    fn try_attributes(&self) -> Result<()> {
        let tried = match &self.workshop {
            Some(workshop) => {
                let draft = workshop.drafts.begin(Mode::RUSR | Mode::WUSR)?;
                self.try_times(&draft.fd)?;
                let now = Edition::new(0, SystemTime::UNIX_EPOCH);
                draft.set_digest(&Digest::of(b""), &now)
            }
            None => match rustix::fs::fgetxattr(self.all.root(), DIGEST_XATTR, &mut [0_u8; 0]) {
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

    fn try_times(&self, file: &OwnedFd) -> Result<()> {
        let odd = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_001, 123_456_789);
        rustix::fs::futimens(file, &timestamps(None, Some(odd)))?;
        let stat = rustix::fs::fstat(file)?;
        let kept = Edition::new(0, super::found::mtime(&stat));
        let wanted = Edition::new(0, odd);
        // Decimal steps, and the two seconds of FAT.
        let unit = std::iter::successors(Some(1), |unit: &i64| unit.checked_mul(10))
            .chain([2_000_000_000])
            .find(|unit| wanted.in_steps_of(*unit) == kept);
        self.time_unit.store(unit.unwrap_or(1), Ordering::Relaxed);
        Ok(())
    }

    /// Which edition of a file has this size and time, as the backing filesystem keeps them.
    pub fn edition(&self, size: u64, mtime: SystemTime) -> Edition {
        Edition::new(size, mtime).in_steps_of(self.time_unit.load(Ordering::Relaxed))
    }

    pub(super) fn writable(&self) -> Result<&Workshop> {
        self.workshop.as_ref().ok_or(Errno::ROFS)
    }

    pub(super) fn step(&self, step: Step) -> Result<()> {
        crate::locks::assert_none_is_short();
        self.faults
            .as_ref()
            .map_or(Ok(()), |faults| faults.before(step))
    }

    /// The backing directory itself.
    pub fn root(&self) -> Directory {
        self.root.clone()
    }

    /// Whether entries carry digests here (the backing filesystem has user extended attributes).
    pub fn has_digests(&self) -> bool {
        self.digests.load(Ordering::Relaxed)
    }

    /// Descriptors that are kept open for directories now, and at the most.
    pub fn descriptors(&self) -> (u64, u64) {
        self.all.counts()
    }

    // --- names ---------------------------------------------------------------------------------

    /// The directory that was found in `dir`. It is opened when it is used.
    pub fn directory(&self, dir: &Directory, found: &Found) -> Directory {
        dir.child(&found.name, found.id)
    }

    /// Everything in `dir`. A name that vanishes meanwhile is left out, and one that cannot be looked at. EINTR once
    /// `stop` has begun.
    pub fn list(&self, dir: &Directory, stop: &Stop) -> Result<Vec<Found>> {
        self.step(Step::Read)?;
        let fd = self.all.get(dir)?;
        let mut list = Vec::new();
        for name in self.all.opening(|| private::names(&*fd))? {
            if stop.has_begun() {
                return Err(Errno::INTR);
            }
            match self.find_in(&fd, &name) {
                Ok(one) => list.push(one),
                Err(Errno::NOENT) => {}
                Err(error) => log::warn!("{name:?} is not served: {error}"),
            }
        }
        Ok(list)
    }

    /// What `name` in `dir` stands for; symbolic links are not followed.
    pub fn find(&self, dir: &Directory, name: &OsStr) -> Result<Found> {
        self.find_in(&*self.all.get(dir)?, name)
    }

    fn find_in(&self, fd: &OwnedFd, name: &OsStr) -> Result<Found> {
        let stat = rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FoundKind::File,
            FileType::Directory => FoundKind::Directory,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(fd, name, Vec::new())?;
                FoundKind::Symlink(OsStr::from_bytes(target.to_bytes()).to_owned())
            }
            _ => FoundKind::Other,
        };
        Ok(found(name.to_owned(), kind, &stat))
    }

    /// What strangers may do with the root, and the mode that it is served with.
    pub fn root_way(&self) -> Result<(Way, u32)> {
        let found = self.root_found()?;
        let way = Way {
            reachable: true,
            open: false,
        };
        let list = |list: &OsStr| {
            let mut value = vec![0; 65_536];
            let len = rustix::fs::fgetxattr(self.all.root(), list, value.as_mut_slice())?;
            value.truncate(len);
            Ok(value)
        };
        let acl = acl::read(list, acl::ACCESS)?;
        if let Some(default) = acl::read(list, acl::DEFAULT)? {
            self.root.set_ceiling(default.strict_bits() | 0o7000);
        }
        let mode = acl
            .as_ref()
            .map_or(found.mode, |acl| acl.strict_bits() | found.mode & 0o7000);
        // Whether others may write the root itself was the caller's to judge before it served it.
        let inside = Way {
            open: false,
            ..self.trusted.way(&found, acl.as_ref(), way)
        };
        Ok((inside, mode))
    }

    /// Whether a stranger could have written what was found in `dir`, to which `way` leads; else the mode that it is
    /// served with: not more than an access control list gives to anybody. `shared`: others use it.
    pub fn judge(
        &self,
        dir: &Directory,
        found: &Found,
        way: Way,
        shared: bool,
    ) -> std::result::Result<u32, Stranger> {
        let acl = self.list_of(dir, found, shared);
        if let Err(stranger) = self.trusted.judge(found, acl.as_ref(), way)
            && !self.is_vouched(dir, found)
        {
            return Err(stranger);
        }
        Ok(acl.map_or(found.mode, |acl| acl.strict_bits() | found.mode & 0o7000))
    }

    /// What strangers may do with a directory that was found in `dir`.
    pub fn way(&self, dir: &Directory, found: &Found, way: Way) -> Way {
        let acl = self.list_of(dir, found, true);
        self.trusted.way(found, acl.as_ref(), way)
    }

    /// Whether a user is root, the daemon's or the directory's owner.
    pub fn trusts(&self, uid: u32) -> bool {
        self.trusted.has_user(uid)
    }

    pub(super) fn trusts_group(&self, gid: u32) -> bool {
        self.trusted.has_group(gid)
    }

    /// Notes what is made in a directory with an access control list for that.
    pub fn note_default(&self, dir: &Directory, found: &Found, own: &Directory) {
        let read = || {
            let target = Target::open(&*self.all.get(dir)?, &found.name)?;
            acl::read(|list| target.xattr(list), acl::DEFAULT)
        };
        match read() {
            Ok(Some(default)) => own.set_ceiling(default.strict_bits() | 0o7000),
            Ok(None) => own.set_ceiling(0o7777),
            Err(_) => own.set_ceiling(0o7700),
        }
    }

    /// The access control list of something. Without bits for the group nobody but the owner may write it by a
    /// list, which then matters only for who may read.
    fn list_of(&self, dir: &Directory, found: &Found, shared: bool) -> Option<acl::Acl> {
        let matters = match found.kind {
            FoundKind::File => found.mode & 0o020 != 0 || shared && found.mode & 0o077 != 0,
            FoundKind::Directory => found.mode & 0o077 != 0,
            FoundKind::Symlink(_) | FoundKind::Other => false,
        };
        if !matters {
            return None;
        }
        let read = || {
            let fd = self.all.get(dir)?;
            let target = self.all.opening(|| Target::open(&*fd, &found.name))?;
            acl::read(|list| target.xattr(list), acl::ACCESS)
        };
        // What cannot be read permits nothing.
        read().unwrap_or_else(|_| Some(acl::Acl::parse(&[])))
    }

    /// What the backing directory's root is.
    pub fn root_found(&self) -> Result<Found> {
        let stat = rustix::fs::fstat(self.all.root())?;
        Ok(found(OsString::new(), FoundKind::Directory, &stat))
    }

    /// Makes a directory of this mode and owner.
    ///
    /// # Errors
    /// Those of the system; ESTALE if something else has taken its place while it was made.
    pub fn make_dir(
        &self,
        dir: &Directory,
        name: &OsStr,
        bits: u32,
        owner: (u32, u32),
    ) -> Result<Directory> {
        self.step(Step::Create)?;
        let parent = self.all.get(dir)?;
        rustix::fs::mkdirat(&*parent, name, Mode::RWXU)?;
        let made = self.all.opening(|| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&*parent, name, flags, Mode::empty())
        })?;
        // From here on it is this directory, whatever its name is given to. Nothing else can be new, ours and empty.
        let stat = rustix::fs::fstat(&made)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() || !private::names(&made)?.is_empty()
        {
            return Err(Errno::STALE);
        }
        let own = || {
            if let Some((uid, gid)) = self.foreign(owner) {
                rustix::fs::fchown(&made, uid, gid)?;
            }
            // mkdir(2) applies the umask and drops set-id bits; chown(2) drops them too.
            rustix::fs::fchmod(&made, directory_mode(bits))
        };
        own().inspect_err(|_| {
            // The first error is the one to tell.
            let _ = rustix::fs::unlinkat(&*parent, name, AtFlags::REMOVEDIR);
        })?;
        self.vouch(&parent, name);
        Ok(dir.child(name, super::directory::Id::of(&stat)))
    }

    /// Makes a symbolic link of this owner.
    ///
    /// # Errors
    /// As [`DiskTier::make_dir`].
    pub fn make_symlink(
        &self,
        dir: &Directory,
        name: &OsStr,
        target: &OsStr,
        owner: (u32, u32),
    ) -> Result<()> {
        self.step(Step::Create)?;
        let parent = self.all.get(dir)?;
        rustix::fs::symlinkat(target, &*parent, name)?;
        let Some((uid, gid)) = self.foreign(owner) else {
            self.vouch(&parent, name);
            return Ok(());
        };
        let ours = Known {
            kind: Thing::Symlink,
            uid: rustix::process::geteuid().as_raw(),
        };
        let own = || {
            let made = self.all.opening(|| Target::open(&*parent, name))?;
            made.check(ours)?.set_owner(
                uid.map(rustix::fs::Uid::as_raw),
                gid.map(rustix::fs::Gid::as_raw),
            )
        };
        own().inspect_err(|_| {
            let _ = rustix::fs::unlinkat(&*parent, name, AtFlags::empty());
        })?;
        self.vouch(&parent, name);
        Ok(())
    }

    /// The part of an owner that is not the daemon's own.
    pub(super) fn foreign(
        &self,
        (uid, gid): (u32, u32),
    ) -> Option<(Option<rustix::fs::Uid>, Option<rustix::fs::Gid>)> {
        let uid =
            Some(rustix::fs::Uid::from_raw(uid)).filter(|uid| *uid != rustix::process::geteuid());
        let gid =
            Some(rustix::fs::Gid::from_raw(gid)).filter(|gid| *gid != rustix::process::getegid());
        (uid.is_some() || gid.is_some()).then_some((uid, gid))
    }

    /// Removes a file or symbolic link.
    pub fn unlink(&self, dir: &Directory, name: &OsStr) -> Result<()> {
        self.step(Step::Rename)?;
        rustix::fs::unlinkat(&*self.all.get(dir)?, name, AtFlags::empty())
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, dir: &Directory, name: &OsStr) -> Result<()> {
        self.step(Step::Rename)?;
        rustix::fs::unlinkat(&*self.all.get(dir)?, name, AtFlags::REMOVEDIR)
    }

    /// Renames; `exchange` swaps the two names instead. Directories that change their place by it are told so:
    /// the one at `from`, and with `exchange` the one at `to`.
    pub fn rename(
        &self,
        from: (&Directory, &OsStr),
        to: (&Directory, &OsStr),
        exchange: bool,
        directories: (Option<&Directory>, Option<&Directory>),
    ) -> Result<()> {
        self.step(Step::Rename)?;
        let flags = if exchange {
            RenameFlags::EXCHANGE
        } else {
            RenameFlags::empty()
        };
        let rename =
            |old: &OwnedFd, new: &OwnedFd| rustix::fs::renameat_with(old, from.1, new, to.1, flags);
        if let (None, None) = directories
            && !self.is_sealed()
        {
            return rename(&*self.all.get(from.0)?, &*self.all.get(to.0)?);
        }
        let _moving = self.all.moving();
        let (old, new) = (self.all.get_moving(from.0)?, self.all.get_moving(to.0)?);
        rename(&old, &new)?;
        if self.is_sealed() {
            let paths = [from, to].map(|(dir, name)| Self::sealed_path(dir, name));
            self.reseal(&new, to.1, &paths[0], &paths[1]);
            if exchange {
                self.reseal(&old, from.1, &paths[1], &paths[0]);
            }
        }
        if let Some(moved) = directories.0 {
            moved.moved(to.0, to.1);
        }
        if let (Some(moved), true) = (directories.1, exchange) {
            moved.moved(from.0, from.1);
        }
        Ok(())
    }

    /// Moves a file whose content is wrong into the quarantine, which keeps a bounded number of them.
    pub fn quarantine(&self, dir: &Directory, name: &OsStr) -> Result<()> {
        self.step(Step::Rename)?;
        self.writable()?.quarantine.take(&*self.all.get(dir)?, name)
    }

    /// Files in the quarantine.
    pub fn quarantined(&self) -> u64 {
        self.workshop
            .as_ref()
            .map_or(0, |workshop| workshop.quarantine.files())
    }

    /// Space on the backing filesystem.
    pub fn space(&self) -> Result<StatVfs> {
        rustix::fs::fstatvfs(self.all.root())
    }
}
