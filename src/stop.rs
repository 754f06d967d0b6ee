//! The end of a daemon's service, as everything that takes long has to know it.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Whether the end of the service has begun: by the daemon's own will, or because the mount is gone.
///
/// What reads a whole directory, or removes from one, asks before each step: nothing may be removed from a
/// directory that is no longer served. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    begun: AtomicBool,
    device: OnceLock<OwnedFd>,
}

impl Stop {
    /// From now on it has begun, too, when the connection of `device` (a duplicate of the kernel's descriptor of
    /// the mount) has ended. The first device stays.
    pub fn with_end_of(&self, device: OwnedFd) {
        let _ = self.0.device.set(device);
    }

    /// The end begins.
    pub fn begin(&self) {
        self.0.begun.store(true, Ordering::Release);
    }

    /// Whether it has begun. Costs a system call of about a microsecond.
    pub fn has_begun(&self) -> bool {
        if self.0.begun.load(Ordering::Acquire) {
            return true;
        }
        let ended = self.0.device.get().is_some_and(has_ended);
        if ended {
            self.begin();
        }
        ended
    }
}

/// Whether the kernel has ended the connection: it says so even to who waits for nothing (`fuse_dev_poll` in
/// fs/fuse/dev.c).
fn has_ended(device: &OwnedFd) -> bool {
    let mut events = [PollFd::new(device, PollFlags::empty())];
    poll(&mut events, Some(&Timespec::default())).is_ok()
        && events[0].revents().contains(PollFlags::ERR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_end_and_a_device_brings_it() {
        let stop = Stop::default();
        let other = stop.clone();
        assert!(!other.has_begun());
        stop.begin();
        assert!(other.has_begun());
        // A pipe whose reader is gone says ERR, as the device of a mount that is gone does.
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let stop = Stop::default();
        stop.with_end_of(writer);
        assert!(!stop.has_begun());
        drop(reader);
        assert!(stop.has_begun());
    }
}
