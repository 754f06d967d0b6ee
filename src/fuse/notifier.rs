//! The thread that tells the kernel what it did not ask for.

use std::collections::{HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

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
            .spawn(move || run(&kernel, &pruner, &notices))?;
        Ok(Self { thread })
    }

    /// Waits for the thread to end.
    pub fn join(self) {
        if self.thread.join().is_err() {
            log::error!("the notifier thread panicked");
        }
    }
}

/// How long after a name has gone its directory's listing is told of once more. A part of a listing that was made
/// before, and that the kernel takes into its cache after the first notice, would show the name for good.
const AGAIN: Duration = Duration::from_secs(1);

fn run(kernel: &fuser::Notifier, pruner: &Pruner, notices: &Receiver<Notice>) {
    // Directories, in the order in which they are to be told of once more.
    let mut again: VecDeque<(Instant, u64)> = VecDeque::new();
    let mut waiting = HashSet::new();
    loop {
        let notice = match again.front() {
            Some((due, _)) => notices.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => notices.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match notice {
            Ok(notice) => {
                if let Notice::Entry { parent, .. } = &notice
                    && waiting.insert(*parent)
                {
                    again.push_back((Instant::now() + AGAIN, *parent));
                }
                tell(kernel, pruner, notice);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        // One that goes on losing names is told of again and again, at most once in this time.
        while again.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            if let Some((_, parent)) = again.pop_front() {
                waiting.remove(&parent);
                log_refusal(kernel.inval_inode(INodeNo(parent), 0, 0));
            }
        }
    }
}

fn log_refusal(told: std::io::Result<()>) {
    if let Err(error) = told {
        // The mount is gone, or going: there is nothing left that could be stale.
        log::debug!("a notice was not taken: {error}");
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
    log_refusal(told);
}
