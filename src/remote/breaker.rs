//! When a remote that fails is asked again.

use std::time::{Duration, Instant};

/// How many failures in a row open the breaker.
const OPENS_AT: u32 = 3;

/// The wait after the first failure; it doubles with each further one.
const SHORTEST: Duration = Duration::from_secs(1);

/// The longest wait: with the time that a question takes, a remote that is back is noticed within a minute.
const LONGEST: Duration = Duration::from_secs(15);

/// Whether the remote is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is.
    Closed,
    /// It is not, for a while.
    Open,
    /// The while is over: one question is asked, to see.
    HalfOpen,
}

impl Standing {
    /// Its name in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// A circuit breaker: after each failure a wait, longer each time and never the same for two hosts; after
/// three in a row it is open, and what ends the wait is one question.
#[derive(Debug)]
pub struct Breaker {
    failures: u32,
    until: Option<Instant>,
    /// How often it opened.
    opened: u64,
    /// A number in 0.75 to 1.25, another each time.
    jitter: fn() -> f64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self::with_jitter(random)
    }
}

impl Breaker {
    /// One that is closed, with a source of chance.
    pub fn with_jitter(jitter: fn() -> f64) -> Self {
        Self {
            failures: 0,
            until: None,
            opened: 0,
            jitter,
        }
    }

    /// Whether the remote may be asked at `now`.
    pub fn standing(&self, now: Instant) -> Standing {
        if self.failures < OPENS_AT {
            Standing::Closed
        } else if self.until.is_some_and(|until| until > now) {
            Standing::Open
        } else {
            Standing::HalfOpen
        }
    }

    /// From when on the remote may be asked; `None`: at once.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// How often it opened.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// The remote answered.
    pub fn succeed(&mut self) {
        self.failures = 0;
        self.until = None;
    }

    /// The remote failed at `now`.
    pub fn fail(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures == OPENS_AT {
            self.opened += 1;
        }
        let doubled = SHORTEST.saturating_mul(1 << (self.failures - 1).min(10));
        let wait = doubled.min(LONGEST).mul_f64((self.jitter)());
        self.until = Some(now + wait);
    }
}

fn random() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let hasher = std::collections::hash_map::RandomState::new().build_hasher();
    0.75 + (hasher.finish() % 1000) as f64 / 2000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_three_failures_and_closes_with_the_first_answer() {
        let mut breaker = Breaker::with_jitter(|| 1.0);
        let now = Instant::now();
        assert_eq!(breaker.standing(now), Standing::Closed);
        breaker.fail(now);
        breaker.fail(now);
        assert_eq!(breaker.standing(now), Standing::Closed);
        assert_eq!(breaker.until(), Some(now + Duration::from_secs(2)));
        breaker.fail(now);
        assert_eq!(breaker.standing(now), Standing::Open);
        let later = now + Duration::from_secs(4);
        assert_eq!(breaker.standing(later), Standing::HalfOpen);
        breaker.fail(later);
        assert_eq!(breaker.standing(later), Standing::Open);
        assert_eq!(breaker.opened(), 1);
        breaker.succeed();
        assert_eq!(breaker.standing(later), Standing::Closed);
        assert_eq!(breaker.until(), None);
    }

    #[test]
    fn no_wait_is_longer_than_stated_and_chance_stays_in_its_bounds() {
        let mut breaker = Breaker::default();
        let now = Instant::now();
        for _ in 0..100 {
            breaker.fail(now);
            let wait = breaker.until().unwrap() - now;
            assert!(wait <= LONGEST.mul_f64(1.25), "{wait:?}");
            assert!(wait >= SHORTEST.mul_f64(0.75), "{wait:?}");
        }
    }
}
