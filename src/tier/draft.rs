//! Drafts: backing files that have no name yet.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::{Errno, Result};

use super::digest::{DIGEST_XATTR, Digest};

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
}

impl Drafts {
    /// `dir` must be private to this process: names in it are made up here.
    pub(super) fn new(dir: OwnedFd) -> Self {
        Self {
            dir: Arc::new(dir),
            serial: AtomicU64::new(0),
            unnamed: AtomicBool::new(true),
            link_by_descriptor: AtomicBool::new(true),
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
                Ok(fd) => return Ok(Draft { fd, named: None }),
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
        let flags = match how {
            Publish::New => RenameFlags::NOREPLACE,
            Publish::Replace => RenameFlags::empty(),
        };
        let renamed = rustix::fs::renameat_with(&*named.dir, named.name.as_str(), dir, name, flags);
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
    named: Option<Named>,
}

impl Draft {
    pub(super) fn set_digest(&self, digest: &Digest) -> Result<()> {
        rustix::fs::fsetxattr(
            &self.fd,
            DIGEST_XATTR,
            digest.as_bytes(),
            XattrFlags::empty(),
        )
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
