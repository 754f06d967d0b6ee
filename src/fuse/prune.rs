//! A message to the kernel that fuser does not know: forget these inodes.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{Errno, Result};

/// `FUSE_NOTIFY_PRUNE` (include/uapi/linux/fuse.h, protocol 7.45, Linux 6.18).
const NOTIFY_PRUNE: u32 = 9;

/// Sizes of `struct fuse_out_header` and of `struct fuse_notify_prune_out`.
const HEADER: u32 = 16;
const BODY: u32 = 16;

/// Has the kernel drop the names and the cached content of inodes that nobody has open.
///
/// Unlike `FUSE_NOTIFY_INVAL_ENTRY` this takes no lock that a program may hold while it waits for the
/// daemon's reply (`fuse_try_prune_one_inode` in fs/fuse/inode.c, `fuse_reverse_inval_entry` in fs/fuse/dir.c).
/// A thread that waits for such a lock cannot be killed: a daemon killed meanwhile would keep the
/// connection open, and with it the program, the lock and itself, for good.
#[derive(Debug)]
pub(super) struct Pruner {
    device: OwnedFd,
    supported: AtomicBool,
}

impl Pruner {
    /// `device` is one more descriptor of the connection.
    pub(super) fn new(device: OwnedFd) -> Self {
        Self {
            device,
            supported: AtomicBool::new(true),
        }
    }

    /// False if the kernel is too old for this.
    pub(super) fn prune(&self, ino: u64) -> bool {
        if !self.supported.load(Ordering::Relaxed) {
            return false;
        }
        match send(&self.device, ino) {
            Err(Errno::INVAL) => {
                log::debug!("the kernel cannot prune inodes (Linux 6.18 can)");
                self.supported.store(false, Ordering::Relaxed);
                false
            }
            Ok(()) => true,
            Err(error) => {
                // The mount is gone, or going: there is nothing left that could be stale.
                log::debug!("a notice was not taken: {error}");
                true
            }
        }
    }
}

fn send(device: impl AsFd, ino: u64) -> Result<()> {
    let message = message(ino);
    // The kernel takes a message whole or not at all.
    rustix::io::write(device, &message).map(drop)
}

fn message(ino: u64) -> Vec<u8> {
    let length = HEADER + BODY + 8;
    let (unique, count, padding, spare) = (0u64, 1u32, 0u32, 0u64);
    [
        length.to_ne_bytes().as_slice(),
        &NOTIFY_PRUNE.to_ne_bytes(),
        &unique.to_ne_bytes(),
        &count.to_ne_bytes(),
        &padding.to_ne_bytes(),
        &spare.to_ne_bytes(),
        &ino.to_ne_bytes(),
    ]
    .concat()
}
