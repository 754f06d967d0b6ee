//! The thread that tells the kernel what it did not ask for.

use std::os::fd::OwnedFd;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use fuser::INodeNo;

use super::prune::Pruner;
use crate::vfs::Notice;

/// Sends notices to the kernel, one after the other, from a thread of its own.
///
/// The kernel takes the directory's lock for a notice, and a page's for content; a request that waits for
/// its reply may hold either. So this thread holds nothing that a request needs: it may wait, and nobody
/// waits for it.
#[derive(Debug)]
pub struct Notifier {
    thread: JoinHandle<()>,
}

impl Notifier {
    /// Starts the thread; `device` is one more descriptor of the connection. It ends when the last sender of `notices` is gone.
    ///
    /// # Errors
    /// That of the system, if it has no room for a thread.
    pub fn start(
        kernel: fuser::Notifier,
        device: OwnedFd,
        notices: Receiver<Notice>,
    ) -> std::io::Result<Self> {
        let pruner = Pruner::new(device);
        let thread = std::thread::Builder::new()
            .name("kidafs-notify".to_owned())
            .spawn(move || {
                notices
                    .iter()
                    .for_each(|notice| tell(&kernel, &pruner, notice))
            })?;
        Ok(Self { thread })
    }

    /// Waits for the thread to end.
    pub fn join(self) {
        if self.thread.join().is_err() {
            log::error!("the notifier thread panicked");
        }
    }
}

fn tell(kernel: &fuser::Notifier, pruner: &Pruner, notice: Notice) {
    let told = match &notice {
        // Of the directory, its times and its listing are left to be told of.
        Notice::Entry { ino, parent, .. } if pruner.prune(*ino) => {
            kernel.inval_inode(INodeNo(*parent), 0, 0)
        }
        Notice::Entry { parent, name, .. } => kernel.inval_entry(INodeNo(*parent), name),
        Notice::Inode { ino } => kernel.inval_inode(INodeNo(*ino), 0, 0),
        Notice::Settled(done) => {
            // Nobody waits any more: nothing to do.
            let _ = done.send(());
            Ok(())
        }
    };
    if let Err(error) = told {
        // The mount is gone, or going: there is nothing left that could be stale.
        log::debug!("a notice was not taken: {error}");
    }
}
