//! When to sweep: on schedule, or at once when somebody asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::bell::Bell;

/// Wakes the sweeper's thread.
#[derive(Debug, Default)]
pub struct Trigger {
    bell: Bell,
    asked: AtomicBool,
    stopped: AtomicBool,
}

impl Trigger {
    /// Asks for a sweep at once. Asking again before it begins asks for the same one.
    pub fn ask(&self) {
        if !self.asked.swap(true, Ordering::AcqRel) {
            self.bell.ring();
        }
    }

    /// Ends [`Trigger::run`], and a sweep that is under way.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Calls `sweep` whenever `interval` has passed since the last time, and when it is asked for.
    pub fn run(&self, interval: Duration, mut sweep: impl FnMut()) {
        while !self.is_stopped() {
            let seen = self.bell.rung();
            if !self.asked.swap(false, Ordering::AcqRel) {
                // Woken early and unasked it sweeps too soon, which does no harm.
                self.bell.wait(seen, Some(interval));
                self.asked.store(false, Ordering::Release);
            }
            if !self.is_stopped() {
                sweep();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn sweeps_when_asked_and_on_schedule_and_ends_when_stopped() {
        for (interval, ask) in [
            (Duration::from_secs(3600), true),
            (Duration::from_millis(1), false),
        ] {
            let trigger = Arc::new(Trigger::default());
            let (swept, sweeps) = channel();
            let own = Arc::clone(&trigger);
            let thread = std::thread::spawn(move || own.run(interval, || swept.send(()).unwrap()));
            for _ in 0..3 {
                if ask {
                    trigger.ask();
                }
                sweeps.recv_timeout(Duration::from_secs(10)).unwrap();
            }
            trigger.stop();
            // Drained, so that a last sweep under way cannot fail to report.
            while sweeps.recv().is_ok() {}
            thread.join().unwrap();
        }
    }
}
