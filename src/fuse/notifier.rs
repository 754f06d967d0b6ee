//! The thread that tells the kernel what it did not ask for.

use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use fuser::INodeNo;

use crate::vfs::Notice;

/// Sends notices to the kernel, one after the other, from a thread of its own.
///
/// The kernel takes the directory's lock for a notice, and a request that waits for its reply may hold that
/// lock. So this thread holds nothing that a request needs: it may wait, and nobody waits for it.
#[derive(Debug)]
pub struct Notifier {
    thread: JoinHandle<()>,
}

impl Notifier {
    /// Starts the thread. It ends when the last sender of `notices` is gone.
    ///
    /// # Errors
    /// That of the system, if it has no room for a thread.
    pub fn start(kernel: fuser::Notifier, notices: Receiver<Notice>) -> std::io::Result<Self> {
        let thread = std::thread::Builder::new()
            .name("notifier".to_owned())
            .spawn(move || notices.iter().for_each(|notice| tell(&kernel, notice)))?;
        Ok(Self { thread })
    }

    /// Waits for the thread to end.
    pub fn join(self) {
        if self.thread.join().is_err() {
            log::error!("the notifier thread panicked");
        }
    }
}

fn tell(kernel: &fuser::Notifier, notice: Notice) {
    let told = match &notice {
        Notice::Entry { parent, name } => kernel.inval_entry(INodeNo(*parent), name),
        Notice::Inode { ino } => kernel.inval_inode(INodeNo(*ino), 0, 0),
        Notice::Content { ino, bytes } => kernel.store(INodeNo(*ino), 0, bytes),
    };
    if let Err(error) = told {
        // The mount is gone, or going: there is nothing left that could be stale.
        log::debug!("a notice was not taken: {error}");
    }
}
