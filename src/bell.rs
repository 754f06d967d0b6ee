//! Wakes a thread that waits for a time or for a call, whatever happens to the clocks.
//!
//! The time to wait goes to the kernel as it is. The waits of the standard library and of parking_lot compare readings
//! of a clock instead, and are off by as much as that is set meanwhile.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::futex;

/// See the module's description.
#[derive(Debug, Default)]
pub struct Bell(AtomicU32);

/// How often a [`Bell`] has rung, at the moment when it was asked.
#[derive(Debug, Clone, Copy)]
pub struct Rung(u32);

impl Bell {
    /// Wakes whoever waits, and whoever is about to.
    pub fn ring(&self) {
        self.0.fetch_add(1, Ordering::Release);
        // It only fails for arguments that are not a futex.
        let _ = futex::wake(&self.0, futex::Flags::PRIVATE, u32::MAX >> 1);
    }

    /// To be asked before looking for what is to be done; [`Bell::wait`] then misses no ring that comes afterwards.
    pub fn rung(&self) -> Rung {
        Rung(self.0.load(Ordering::Acquire))
    }

    /// Waits for a ring after `seen`, at the most for `limit`. May return early.
    pub fn wait(&self, seen: Rung, limit: Option<Duration>) {
        let limit = limit.map(|limit| futex::Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        });
        // Rung already, timed out or interrupted: the caller looks again in each case.
        let _ = futex::wait(&self.0, futex::Flags::PRIVATE, seen.0, limit.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_ring_before_the_wait_is_not_missed() {
        let bell = Bell::default();
        let seen = bell.rung();
        bell.ring();
        bell.wait(seen, None);
    }

    #[test]
    fn a_ring_wakes_who_waits_and_a_limit_ends_a_wait() {
        let bell = Arc::new(Bell::default());
        let own = Arc::clone(&bell);
        let (awake, woken) = channel();
        let seen = bell.rung();
        let thread = std::thread::spawn(move || {
            own.wait(seen, None);
            awake.send(()).unwrap();
        });
        bell.ring();
        woken.recv_timeout(Duration::from_secs(10)).unwrap();
        thread.join().unwrap();
        bell.wait(bell.rung(), Some(Duration::from_millis(1)));
    }
}
