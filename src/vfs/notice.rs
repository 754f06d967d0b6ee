//! What the kernel is to be told, unasked.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// Something for the kernel's caches.
///
/// The kernel takes the directory's lock to carry it out, so it is never sent from within an
/// operation: operations only queue it, and the notifier's own thread, which holds no lock, sends it.
#[derive(Debug, Clone)]
pub enum Notice {
    /// The name is gone, or stands for something else.
    Entry {
        /// The directory's inode number.
        parent: u64,
        /// The name.
        name: OsString,
    },
    /// The inode's content and attributes have changed.
    Inode {
        /// Its number.
        ino: u64,
    },
    /// The inode's whole content, for the kernel's page cache.
    Content {
        /// Its number.
        ino: u64,
        /// The content.
        bytes: Arc<[u8]>,
    },
}

/// Where operations queue what the kernel is to be told.
#[derive(Debug, Clone, Default)]
pub struct Notices(Option<Sender<Notice>>);

impl Notices {
    /// Queues to `sender`.
    pub fn new(sender: Sender<Notice>) -> Self {
        Self(Some(sender))
    }

    /// Tells nobody; for use without a mount.
    pub fn none() -> Self {
        Self(None)
    }

    pub(super) fn send(&self, notice: Notice) {
        if let Some(sender) = &self.0 {
            // Fails only when the notifier has ended, and then there is no kernel to tell.
            let _ = sender.send(notice);
        }
    }
}
