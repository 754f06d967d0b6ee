//! What the kernel is to be told, unasked.

use std::ffi::OsString;
use std::sync::mpsc::{Sender, SyncSender, sync_channel};

/// Something for the kernel's caches.
///
/// The kernel takes the directory's lock to carry it out, so it is never sent from within an
/// operation: operations only queue it, and the notifier's own thread, which holds no lock, sends it.
#[derive(Debug, Clone)]
pub enum Notice {
    /// The inode has lost this name, and not by a request of the kernel's.
    Entry {
        /// Its inode number.
        ino: u64,
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
    /// Everything queued before has been sent.
    Settled(SyncSender<()>),
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

    /// Waits until all that is queued has been sent. Never from within an operation: the kernel may be
    /// waiting for that operation's reply before it takes the next notice.
    pub(super) fn settle(&self) {
        let (done, settled) = sync_channel(1);
        self.send(Notice::Settled(done));
        // Fails when there is no notifier, and then nothing is queued.
        let _ = settled.recv();
    }

    pub(super) fn send(&self, notice: Notice) {
        if let Some(sender) = &self.0 {
            // Fails only when the notifier has ended, and then there is no kernel to tell.
            let _ = sender.send(notice);
        }
    }
}
