//! When to sweep: on schedule, or at once when somebody asks.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Wakes the sweeper's thread.
#[derive(Debug, Default)]
pub struct Trigger {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    asked: bool,
    stopped: bool,
}

impl Trigger {
    /// Asks for a sweep at once. Asking again before it begins asks for the same one.
    pub fn ask(&self) {
        self.state.lock().asked = true;
        self.wake.notify_all();
    }

    /// Ends [`Trigger::run`].
    pub fn stop(&self) {
        self.state.lock().stopped = true;
        self.wake.notify_all();
    }

    /// Calls `sweep` whenever `interval` has passed since the last time, and when it is asked for.
    pub fn run(&self, interval: Duration, mut sweep: impl FnMut()) {
        let mut state = self.state.lock();
        while !state.stopped {
            if !state.asked {
                // Woken early and unasked it sweeps too soon, which does no harm.
                self.wake.wait_for(&mut state, interval);
            }
            if state.stopped {
                break;
            }
            state.asked = false;
            drop(state);
            sweep();
            state = self.state.lock();
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
