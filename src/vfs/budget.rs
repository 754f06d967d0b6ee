//! Budgets: what is bounded beside the entries themselves, and the charges against it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Something that there is a limited amount of: bytes, descriptors, inodes.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicU64,
    limit: u64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicU64::new(0),
            limit,
        })
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes `amount`, if there is as much left.
    pub(super) fn charge(self: &Arc<Self>, amount: u64) -> Option<Charge> {
        self.take(amount).then(|| Charge {
            budget: Arc::clone(self),
            amount,
        })
    }

    fn take(&self, amount: u64) -> bool {
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(amount).filter(|used| *used <= self.limit)
            });
        taken.is_ok()
    }

    /// Takes `amount` of what was there before, beyond the limit too.
    pub(super) fn found(self: &Arc<Self>, amount: u64) -> Charge {
        self.used.fetch_add(amount, Ordering::Relaxed);
        Charge {
            budget: Arc::clone(self),
            amount,
        }
    }
}

/// A part of a budget, given back when this is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Arc<Budget>,
    amount: u64,
}

impl Charge {
    /// Makes it `amount`; false, and nothing is changed, if there is not as much left.
    #[must_use]
    pub(super) fn resize(&mut self, amount: u64) -> bool {
        if amount > self.amount {
            if !self.budget.take(amount - self.amount) {
                return false;
            }
        } else {
            self.budget
                .used
                .fetch_sub(self.amount - amount, Ordering::Relaxed);
        }
        self.amount = amount;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_charged_is_given_back_and_never_beyond_the_limit() {
        let budget = Budget::new(10);
        let mut one = budget.charge(4).unwrap();
        assert!(budget.charge(7).is_none());
        let two = budget.charge(6).unwrap();
        assert_eq!(budget.used(), 10);
        assert!(!one.resize(5));
        drop(two);
        assert!(one.resize(10));
        assert!(one.resize(3));
        let found = budget.found(20);
        assert_eq!((one.amount, budget.used()), (3, 23));
        drop((one, found));
        assert_eq!(budget.used(), 0);
    }
}
