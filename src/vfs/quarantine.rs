//! Content that is not what was committed: checked before it is served, set aside when it is wrong.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Vfs;
use super::content::is_buffered;
use super::error::{Error, Result};
use super::node::Node;
use super::notice::Notice;
use super::scan::charge;
use crate::evict::Reason;
use crate::tier::Patience;

impl Vfs {
    /// Checks a file's content before the kernel is given the inode for the first time, so that an engine
    /// finds a corrupt entry missing instead of stumbling over it. False: it is gone.
    ///
    /// # Errors
    /// EAGAIN with [`Patience::None`] if the disk would have to be waited for.
    pub(super) fn verify(&self, node: &Arc<Node>, patience: Patience) -> Result<bool> {
        if node.verified.load(Ordering::Acquire) || is_buffered(node) {
            return Ok(true);
        }
        match self.committed(node, patience) {
            Err(Error::Corrupt) => {
                self.quarantine(node);
                Ok(false)
            }
            Err(Error::WouldWait) => Err(Error::WouldWait),
            // Other errors are for who reads it.
            _ => Ok(true),
        }
    }

    /// Checks committed content against its digest once more, as it is on disk now, whatever is kept in memory.
    ///
    /// # Errors
    /// EIO if it is corrupt, and has been set aside; ESTALE; those of the backing filesystem.
    pub fn check_again(&self, ino: u64) -> Result<()> {
        let node = self.node(ino)?;
        if node.content().is_none() || is_buffered(&node) {
            return Ok(());
        }
        match self.load(&node, Patience::Any) {
            Err(Error::Corrupt) => {
                self.quarantine(&node);
                Err(Error::Corrupt)
            }
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    /// Sets a corrupt file aside: out of the tree, into the private folder, counted and logged once.
    pub(super) fn quarantine(&self, node: &Arc<Node>) {
        if let Err(error) = self.set_aside(node) {
            log::error!(
                "a corrupt entry (inode {}) cannot be set aside: {error}",
                node.ino
            );
        }
    }

    fn set_aside(&self, node: &Arc<Node>) -> Result<()> {
        let Some(place) = node.place() else {
            return Ok(());
        };
        let folder = place.parent.folder();
        {
            let _names = folder.names.lock();
            if !node.is_at(&place) || is_buffered(node) {
                return Ok(());
            }
            let _replacing = folder.replacing();
            if self.config.read_only {
                log::error!(
                    "{:?} is corrupt and stays where it is: mounted read-only",
                    place.name
                );
            } else {
                self.disk.quarantine(&folder.disk, &place.name)?;
                log::error!(
                    "{:?} is corrupt and was set aside in .kidafs/quarantine",
                    place.name
                );
            }
            folder.children.write().remove(&place.name);
            self.touch_directory(&place.parent);
            self.detach(node);
        }
        let size = node.meta.lock().attr.size;
        self.counters.evicted(Reason::Corrupt, charge(size));
        self.notices.send(Notice::Inode { ino: node.ino });
        self.notices.send(Notice::Entry {
            ino: node.ino,
            parent: place.parent.ino,
            name: OsString::from(&*place.name),
        });
        Ok(())
    }
}
