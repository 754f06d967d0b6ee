//! Directories: what an inode that is one has, and what the others do not.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::children::Children;
use super::error::{Error, Result};
use super::node::{Body, Node};
use crate::locks::{self, CHILDREN, Guard, NAMES};
use crate::tier::{Directory, Patience};

/// An inode that is a directory. Only these are a parent, so that nobody has to ask what a parent is.
#[derive(Debug, Clone)]
pub(super) struct Dir(Arc<Node>);

impl Dir {
    /// The inode as a directory, if it is one.
    pub(super) fn of(node: &Arc<Node>) -> Option<Self> {
        node.is_dir().then(|| Self(Arc::clone(node)))
    }

    /// A new inode as a directory, if it is one.
    pub(super) fn new(node: Node) -> Option<Self> {
        Self::of(&Arc::new(node))
    }

    /// What a directory has.
    pub(super) fn folder(&self) -> &Folder {
        match &self.0.body {
            Body::Directory(folder) => folder,
            // `Dir::of` made it, and a body never changes.
            _ => unreachable!("a directory that is none"),
        }
    }

    /// What is in it now, in the order of its listings.
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        self.folder().children.read().nodes().cloned().collect()
    }
}

impl Deref for Dir {
    type Target = Arc<Node>;

    fn deref(&self) -> &Arc<Node> {
        &self.0
    }
}

/// The right to change the names of a directory.
pub(super) type NamesGuard<'a> = Guard<parking_lot::MutexGuard<'a, ()>>;

/// A directory's own part.
#[derive(Debug)]
pub(super) struct Folder {
    /// Taken by whatever changes names in this directory, disk included. The kernel serialises such
    /// requests per directory anyway, so only the daemon's own threads ever wait here.
    pub(super) names: locks::Mutex<NAMES, ()>,
    /// Goes up whenever a name begins and ends to be replaced or removed; see `Vfs::load`.
    pub(super) sequence: AtomicU64,
    /// Names that are being replaced or removed.
    replaced: AtomicU64,
    pub(super) children: locks::RwLock<CHILDREN, Children>,
    /// Folders among the children.
    folders: Arc<AtomicU64>,
    pub(super) disk: Directory,
}

impl Folder {
    pub(super) fn new(disk: Directory) -> Self {
        let children = Children::default();
        Self {
            names: locks::Mutex::default(),
            sequence: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
            folders: children.folders(),
            children: locks::RwLock::new(children),
            disk,
        }
    }

    /// Links as other filesystems count them: its name, its `.`, and the `..` of each folder in it.
    pub(super) fn links(&self) -> u32 {
        let folders = self.folders.load(Ordering::Relaxed);
        u32::try_from(folders).unwrap_or(u32::MAX).saturating_add(2)
    }

    /// The right to change names in this directory.
    ///
    /// # Errors
    /// With [`Patience::None`] EAGAIN while another thread has it.
    pub(super) fn lock_names(&self, patience: Patience) -> Result<NamesGuard<'_>> {
        match patience {
            Patience::Any => Ok(self.names.lock()),
            Patience::None => self.names.try_lock().ok_or(Error::WouldWait),
        }
    }

    /// Marks the time during which names in the backing directory stand for something else than in
    /// memory: from before the step on disk until the tree agrees. The caller holds `names`.
    pub(super) fn replacing(&self) -> Replacing<'_> {
        self.replaced.fetch_add(1, Ordering::AcqRel);
        self.sequence.fetch_add(1, Ordering::AcqRel);
        Replacing(self)
    }

    /// The sequence number, unless names are being replaced just now.
    pub(super) fn stable_sequence(&self) -> Option<u64> {
        let sequence = self.sequence.load(Ordering::Acquire);
        (self.replaced.load(Ordering::Acquire) == 0).then_some(sequence)
    }
}

/// See [`Folder::replacing`]; ends on drop.
#[derive(Debug)]
pub(super) struct Replacing<'a>(&'a Folder);

impl Drop for Replacing<'_> {
    fn drop(&mut self) {
        self.0.sequence.fetch_add(1, Ordering::AcqRel);
        self.0.replaced.fetch_sub(1, Ordering::AcqRel);
    }
}
