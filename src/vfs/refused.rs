//! Names that a file which is not whole was to be renamed to.
//!
//! Python's `shutil.move`, with which Mako commits, copies the file in place where a rename fails. A copy of what
//! is not whole must not take the old entry's place any more than the file itself: so as long as the refused
//! file is there, its target is not to be made or cut off in place. Another commit of that name ends it.

use std::collections::HashMap;

use super::error::{Error, Result};
use super::node::Name;
use crate::locks::{Mutex, REFUSED};

/// The renames that were refused, by the inode number of what was to be renamed.
#[derive(Debug, Default)]
pub(super) struct Refused(Mutex<REFUSED, HashMap<u64, Target>>);

#[derive(Debug)]
struct Target {
    parent: u64,
    name: Name,
    error: Error,
}

impl Refused {
    /// Renaming inode `ino` to `name` in `parent` was refused with `error`.
    pub(super) fn note(&self, ino: u64, parent: u64, name: Name, error: Error) {
        let target = Target {
            parent,
            name,
            error,
        };
        self.0.lock().insert(ino, target);
    }

    /// Inode `ino` is whole again, or gone.
    pub(super) fn clear(&self, ino: u64) {
        self.0.lock().remove(&ino);
    }

    /// `name` in `parent` has been committed.
    pub(super) fn committed(&self, parent: u64, name: &Name) {
        let mut refused = self.0.lock();
        if !refused.is_empty() {
            refused.retain(|_, target| target.parent != parent || target.name != *name);
        }
    }

    /// Fails with what a rename to this name failed with.
    pub(super) fn check(&self, parent: u64, name: &std::ffi::OsStr) -> Result<()> {
        let refused = self.0.lock();
        if refused.is_empty() {
            return Ok(());
        }
        let mut targets = refused.values();
        match targets.find(|target| target.parent == parent && *target.name == *name) {
            Some(target) => Err(target.error),
            None => Ok(()),
        }
    }
}
