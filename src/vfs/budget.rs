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

/// Files on disk and what they take there, in whole blocks: what `--max-entries` and `--max-size` limit.
#[derive(Debug, Default)]
pub(super) struct DiskUse {
    pub(super) entries: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// One file's part of [`DiskUse`], given back when this is dropped.
#[derive(Debug)]
pub(super) struct OnDisk {
    used: Arc<DiskUse>,
    /// Bytes, plus one; 0: there is no file.
    charged: AtomicU64,
}

impl OnDisk {
    /// No file.
    pub(super) fn nothing(used: &Arc<DiskUse>) -> Self {
        Self {
            used: Arc::clone(used),
            charged: AtomicU64::new(0),
        }
    }

    pub(super) fn is_charged(&self) -> bool {
        self.charged.load(Ordering::Acquire) > 0
    }

    pub(super) fn charged(&self) -> Option<u64> {
        self.charged.load(Ordering::Acquire).checked_sub(1)
    }

    /// There is a file of so many bytes, whatever there was before; `None`: there is none.
    pub(super) fn set(&self, bytes: Option<u64>) {
        let after = bytes.map_or(0, |bytes| bytes + 1);
        let before = self.charged.swap(after, Ordering::AcqRel);
        let (entries, total) = (&self.used.entries, &self.used.bytes);
        match (before, after) {
            (0, 1..) => entries.fetch_add(1, Ordering::Relaxed),
            (1.., 0) => entries.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
        total.fetch_add(after.saturating_sub(1), Ordering::Relaxed);
        total.fetch_sub(before.saturating_sub(1), Ordering::Relaxed);
    }

    /// The file is another inode's from now on, which has none.
    pub(super) fn hand_over(&self, to: &Self) {
        debug_assert!(!to.is_charged(), "it has a file on disk already");
        let charged = self.charged.swap(0, Ordering::AcqRel);
        to.charged.store(charged, Ordering::Release);
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        self.set(None);
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
