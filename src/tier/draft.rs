//! Drafts: backing files that have no name yet.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::{Errno, Result};

use super::digest::{DIGEST_XATTR, Digest, Edition, Signature};

/// Whether a file may take the place of another when it is given its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publish {
    /// The name must be free; else EEXIST.
    New,
    /// Whatever file has the name is replaced, atomically.
    Replace,
}

/// Makes [`Draft`]s below one private directory.
#[derive(Debug)]
pub(super) struct Drafts {
    dir: Arc<OwnedFd>,
    serial: AtomicU64,
    unnamed: AtomicBool,
    link_by_descriptor: AtomicBool,
    /// Whether a rename can be told not to replace.
    rename_flags: AtomicBool,
}

impl Drafts {
    /// `dir` must be private to this process: names in it are made up here.
    pub(super) fn new(dir: OwnedFd) -> Self {
        let drafts = Self {
            dir: Arc::new(dir),
            serial: AtomicU64::new(0),
            unnamed: AtomicBool::new(true),
            link_by_descriptor: AtomicBool::new(true),
            rename_flags: AtomicBool::new(true),
        };
        drafts.try_unnamed();
        drafts
    }

    /// Finds out whether an unnamed draft can be given a name here: /proc may be missing, the filesystem may have
    /// one and not the other. What fails for another reason is left for the first commit to tell.
    fn try_unnamed(&self) {
        let Ok(draft) = self.begin(Mode::RUSR | Mode::WUSR) else {
            return;
        };
        if draft.named.is_some() {
            return;
        }
        let name = self.fresh_name();
        match self.link(&draft.fd, &*self.dir, OsStr::new(&name)) {
            Ok(()) => {
                // What cannot be removed now is removed by the next start.
                let _ = rustix::fs::unlinkat(&*self.dir, name.as_str(), AtFlags::empty());
            }
            Err(Errno::NOSPC | Errno::DQUOT | Errno::IO) => {}
            Err(error) => {
                log::debug!("files without a name cannot be given one here ({error})");
                self.unnamed.store(false, Ordering::Relaxed);
            }
        }
    }

    fn fresh_name(&self) -> String {
        format!("{}", self.serial.fetch_add(1, Ordering::Relaxed))
    }

    /// An empty draft. Unnamed (`O_TMPFILE`) where the filesystem has that: nothing is left of it if
    /// the process dies. Else a file in the private directory, which the next start empties.
    pub(super) fn begin(&self, mode: Mode) -> Result<Draft> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        if self.unnamed.load(Ordering::Relaxed) {
            match rustix::fs::openat(&*self.dir, ".", flags | OFlags::TMPFILE, mode) {
                Ok(fd) => {
                    return Ok(Draft {
                        fd,
                        signed: Mutex::new(None),
                        named: None,
                    });
                }
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                    self.unnamed.store(false, Ordering::Relaxed);
                }
                Err(error) => return Err(error),
            }
        }
        let name = self.fresh_name();
        let fd = rustix::fs::openat(
            &*self.dir,
            name.as_str(),
            flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW,
            mode,
        )?;
        Ok(Draft {
            fd,
            signed: Mutex::new(None),
            named: Some(Named {
                dir: Arc::clone(&self.dir),
                name,
            }),
        })
    }

    /// Gives `draft` the name `name` in `dir`, in one atomic step.
    pub(super) fn publish(
        &self,
        draft: &mut Draft,
        dir: impl AsFd,
        name: &OsStr,
        how: Publish,
    ) -> Result<()> {
        if draft.named.is_none() && how == Publish::New {
            return self.link(&draft.fd, dir, name);
        }
        if draft.named.is_none() {
            // A link cannot replace a file: the draft gets a private name first, then is renamed.
            let private = self.fresh_name();
            self.link(&draft.fd, &*self.dir, OsStr::new(&private))?;
            draft.named = Some(Named {
                dir: Arc::clone(&self.dir),
                name: private,
            });
        }
        let Some(named) = draft.named.take() else {
            return Err(Errno::INVAL);
        };
        let renamed = match how {
            Publish::New => self.rename_new(&named, dir, name),
            Publish::Replace => rustix::fs::renameat(&*named.dir, named.name.as_str(), dir, name),
        };
        match renamed {
            Ok(()) => {
                named.forget();
                Ok(())
            }
            Err(error) => {
                draft.named = Some(named);
                Err(error)
            }
        }
    }

    /// Renames to a name that must be free.
    ///
    /// NFS, 9p and FUSE filesystems have no flags for that (EINVAL), nor has a kernel before 3.15 (ENOSYS). A link
    /// fails if the name is taken just so. Where there are no links either, the name is looked for first: names in
    /// the backing directory are the daemon's to make, so nobody else takes it in between.
    fn rename_new(&self, named: &Named, dir: impl AsFd, name: &OsStr) -> Result<()> {
        let own = named.name.as_str();
        if self.rename_flags.load(Ordering::Relaxed) {
            let flags = RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(&*named.dir, own, &dir, name, flags) {
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    self.rename_flags.store(false, Ordering::Relaxed);
                }
                other => return other,
            }
        }
        match rustix::fs::linkat(&*named.dir, own, &dir, name, AtFlags::empty()) {
            Ok(()) => {
                // What cannot be removed now is removed by the next start.
                let _ = rustix::fs::unlinkat(&*named.dir, own, AtFlags::empty());
                Ok(())
            }
            Err(Errno::EXIST) => Err(Errno::EXIST),
            Err(_) => match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => rustix::fs::renameat(&*named.dir, own, dir, name),
                Err(error) => Err(error),
            },
        }
    }

    fn link(&self, fd: &OwnedFd, dir: impl AsFd, name: &OsStr) -> Result<()> {
        if self.link_by_descriptor.load(Ordering::Relaxed) {
            // Needs CAP_DAC_READ_SEARCH, or Linux 6.10 and the credentials that opened the file.
            match rustix::fs::linkat(fd, "", &dir, name, AtFlags::EMPTY_PATH) {
                Err(Errno::NOENT) => self.link_by_descriptor.store(false, Ordering::Relaxed),
                other => return other,
            }
        }
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        rustix::fs::linkat(CWD, path, dir, name, AtFlags::SYMLINK_FOLLOW)
    }
}

/// A backing file that has no name yet; dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Draft {
    pub(super) fd: OwnedFd,
    /// What it was signed with.
    pub(super) signed: Mutex<Option<(Digest, Edition)>>,
    named: Option<Named>,
}

impl Draft {
    pub(super) fn set_digest(&self, digest: &Digest, edition: &Edition) -> Result<()> {
        let stored = Signature::stored(digest, edition);
        rustix::fs::fsetxattr(&self.fd, DIGEST_XATTR, &stored, XattrFlags::empty())
    }
}

#[derive(Debug)]
struct Named {
    dir: Arc<OwnedFd>,
    name: String,
}

impl Named {
    /// The file has been renamed away: there is nothing to remove.
    fn forget(mut self) {
        self.name.clear();
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            // What cannot be removed now is removed by the next start.
            let _ = rustix::fs::unlinkat(&*self.dir, self.name.as_str(), AtFlags::empty());
        }
    }
}
