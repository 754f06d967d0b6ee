//! Content that is not what was committed: checked before it is served, set aside when it is wrong.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Vfs;
use super::content::{is_buffered, lock_content};
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
        let Some(content) = node.content() else {
            return Ok(true);
        };
        if node.verified.load(Ordering::Acquire) || lock_content(content, patience)?.is_buffered() {
            return Ok(true);
        }
        match self.committed(node, patience) {
            Err(error) if error.is_unfit() => {
                self.quarantine(node, error);
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
            Err(error) if error.is_unfit() => {
                self.quarantine(&node, error);
                Err(error)
            }
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    /// Takes a file that is unfit to be served out of the tree, counted and logged once. A corrupt file and an
    /// unsealed entry go to the private folder; what is nobody's, or another user's, stays where it is.
    pub(super) fn quarantine(&self, node: &Arc<Node>, why: Error) {
        if let Err(error) = self.set_aside(node, why) {
            log::error!(
                "an entry (inode {}) that is unfit to be served ({why}) cannot be set aside: {error}",
                node.ino
            );
        }
    }

    fn set_aside(&self, node: &Arc<Node>, why: Error) -> Result<()> {
        let Some(place) = node.place() else {
            return Ok(());
        };
        let folder = place.parent.folder();
        let (is_moved, what) = match why {
            Error::Stranger => (false, "another user's"),
            Error::Unsealed => (self.is_cache_file(node, &place), "unsealed"),
            _ => (true, "corrupt"),
        };
        {
            let _names = folder.names.lock();
            if !node.is_at(&place) || is_buffered(node) {
                return Ok(());
            }
            let _replacing = folder.replacing();
            if !is_moved {
                log::error!("{:?} is {what}: not served, and left alone", place.name);
            } else if self.config.read_only {
                log::error!(
                    "{:?} is {what} and stays where it is: mounted read-only",
                    place.name
                );
            } else {
                self.disk.quarantine(&folder.disk, &place.name)?;
                log::error!(
                    "{:?} is {what} and was set aside in .kidafs/quarantine",
                    place.name
                );
            }
            folder.children.write().remove(&place.name);
            self.touch_directory(&place.parent);
            self.detach(node);
        }
        let size = node.meta.lock().attr.size;
        match why {
            Error::Stranger => self.counters.not_served(1),
            Error::Unsealed => self.counters.evicted(Reason::Unsealed, charge(size)),
            _ => self.counters.evicted(Reason::Corrupt, charge(size)),
        }
        self.notices.send(Notice::Inode { ino: node.ino });
        self.notices.send(Notice::Entry {
            ino: node.ino,
            parent: place.parent.ino,
            name: OsString::from(&*place.name),
        });
        Ok(())
    }
}
