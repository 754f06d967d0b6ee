//! The source of time. Every rule that depends on time asks a [`Clock`], so that a test can set it.
//!
//! There are two: the time of day is stamped on files and shown to people, and may be set at any moment; delays and
//! ages are measured on a clock that only ever goes forward.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

/// Where the time of day comes from.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The time of day, as it is stamped on files and compared with their times.
    fn now(&self) -> SystemTime;

    /// The time since some moment in the past, always the same one: nobody can set it, and it never goes back.
    fn steady(&self) -> Duration;
}

/// The machine's own clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn steady(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Duration::new(
            u64::try_from(now.tv_sec).unwrap_or(0),
            u32::try_from(now.tv_nsec).unwrap_or(0),
        )
    }
}

/// A clock that stands still until it is told to move; for tests.
#[derive(Debug)]
pub struct ManualClock(Mutex<Times>);

#[derive(Debug)]
struct Times {
    now: SystemTime,
    steady: Duration,
}

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: SystemTime) -> Self {
        Self(Mutex::new(Times {
            now: start,
            steady: Duration::ZERO,
        }))
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let mut times = self.lock();
        times.now += by;
        times.steady += by;
    }

    /// Sets the time of day, as an administrator or NTP does: no time passes.
    pub fn set(&self, now: SystemTime) {
        self.lock().now = now;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Times> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        self.lock().now
    }

    fn steady(&self) -> Duration {
        self.lock().steady
    }
}
