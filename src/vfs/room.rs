//! Making room for what is stored: within the budget, and on a full disk.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Vfs;
use super::error::{Error, Result};
use super::evict::{Hold, Need, ROUND};
use super::node::Node;
use super::notice::Notice;
use crate::config::KeepFree;
use crate::evict::Free;

/// Up to so many files a plan is made at once by who needs room; above, the sweeper makes it, and what is stored until
/// then goes through.
const PLANNED_AT_ONCE: u64 = 50_000;

/// How many files may go through so.
const WAVED_THROUGH: u64 = 4_096;

impl Vfs {
    /// Whether a file of `size` bytes fits the budget as it is, in the place of `replaced`.
    pub(super) fn has_room(&self, size: u64, replaced: Option<&Node>) -> bool {
        let (needed, files) = needed(size, replaced);
        self.used
            .bytes
            .load(Ordering::Relaxed)
            .saturating_add(needed)
            <= self.max_size()
            && self
                .used
                .entries
                .load(Ordering::Relaxed)
                .saturating_add(files)
                <= self.max_entries()
    }

    /// Makes sure that a file of `size` bytes fits the budget before it is committed, evicting if it must.
    /// `replaced` is the file whose name it takes: what that counts becomes free with the commit, and only then.
    ///
    /// Far above the limit one store need not wait for all that is too much: what leaves makes up for what comes, and
    /// the sweeper does the rest.
    ///
    /// # Errors
    /// ENOSPC if it does not fit whatever is evicted.
    pub(super) fn make_room(&self, size: u64, replaced: Option<&Node>) -> Result<()> {
        let (needed, files) = needed(size, replaced);
        let fits = || self.has_room(size, replaced);
        // At the end of the service what was accepted is written all the same: the next sweep makes the room.
        if fits() || self.about.stop.has_begun() {
            self.evictor.budget_told.store(false, Ordering::Relaxed);
            return Ok(());
        }
        let spared = replaced.map_or([0], |node| [node.ino]);
        let (bytes, entries) = (&self.used.bytes, &self.used.entries);
        let wanted_bytes = bytes.load(Ordering::Relaxed).saturating_sub(needed);
        let wanted_entries = entries.load(Ordering::Relaxed).saturating_sub(files);
        let enough = || {
            fits()
                || bytes.load(Ordering::Relaxed) <= wanted_bytes
                    && entries.load(Ordering::Relaxed) <= wanted_entries
        };
        self.sweeper.ask();
        if self.evict_until(&enough, &spared) {
            return Ok(());
        }
        if entries.load(Ordering::Relaxed) > PLANNED_AT_ONCE
            && self.evictor.waved.fetch_add(1, Ordering::Relaxed) < WAVED_THROUGH
        {
            return Ok(());
        }
        let _one_at_a_time = self.sweeping.lock();
        if self.evict_until(&enough, &spared) {
            return Ok(());
        }
        self.make_plan(
            Need {
                bytes: needed,
                files,
                free: None,
            },
            &spared,
        );
        if self.evict_until(&enough, &spared) {
            Ok(())
        } else {
            Err(Error::NoRoom)
        }
    }

    /// Evicts victims of the latest plan until `enough`; false if there are too few.
    fn evict_until(&self, enough: &impl Fn() -> bool, spared: &[u64]) -> bool {
        let mut parents = BTreeSet::new();
        while !enough() {
            let Some((victim, planned_at)) = self.evictor.next() else {
                break;
            };
            if !spared.contains(&victim.id) {
                parents.extend(self.evict(&victim, planned_at, Hold::Anyhow));
            }
        }
        for ino in parents {
            self.notices.send(Notice::Inode { ino });
        }
        enough()
    }

    /// The backing filesystem is full: evicts enough for `size` bytes, and what `--keep-free` asks for.
    /// Returns whether anything was evicted, so that another try is worth it. The inodes `spared` stay: they
    /// are what is being written.
    pub(super) fn relieve(&self, size: u64, spared: &[u64]) -> bool {
        let _one_at_a_time = self.sweeping.lock();
        let Some(mut free) = self.free() else {
            return false;
        };
        if !self.relief_is_worth_it() {
            return false;
        }
        let planned_at = self.moment();
        // The file, and as much again for the directory, its attributes and a concurrent commit. Less where that
        // cannot be had.
        let needed = super::scan::charge(size).max(1);
        let wanted = needed.saturating_mul(2).max(1 << 20);
        let keep = self.config.keep_free.bytes_of(free.total).max(wanted);
        // What root may still use of the reserve is no measure: the write has just failed.
        free.available = free.available.min(keep.saturating_sub(wanted));
        let goals = [keep, wanted, needed.saturating_mul(2), needed];
        let plans = goals.into_iter().map(|goal| {
            let need = Need {
                free: Some(KeepFree::Bytes(goal)),
                ..Need::default()
            };
            let free = Free {
                available: free.available.min(goal.saturating_sub(needed)),
                ..free
            };
            self.plan_for(need, Some(free), spared).victims
        });
        let victims = plans.into_iter().find(|victims| !victims.is_empty());
        let (mut evicted, mut freed) = (0, 0);
        for victim in victims.unwrap_or_default().iter().take(ROUND) {
            // Held as a file, an open victim would keep its space on disk until the kernel forgets it, and
            // the kernel may be waiting for this very request.
            let hold = if freed < wanted {
                Hold::InMemory
            } else {
                Hold::Anyhow
            };
            if let Some(ino) = self.evict(victim, planned_at, hold) {
                evicted += 1;
                freed += victim.size;
                self.notices.send(Notice::Inode { ino });
            }
        }
        log::warn!("the backing filesystem is full: {evicted} entries evicted");
        evicted > 0
    }

    /// Whether evicting has helped the last time: where nothing could be stored since, it is not room that is missing.
    fn relief_is_worth_it(&self) -> bool {
        /// After so long it may help again.
        const PAUSE: Duration = Duration::from_secs(60);
        let commits = self.counters.commits.load(Ordering::Relaxed);
        let now = self.steady();
        let mut relieved = self.evictor.relieved_at.lock();
        if let Some((before, at)) = *relieved
            && before == commits
            && now.duration_since(at).is_ok_and(|since| since < PAUSE)
        {
            return false;
        }
        *relieved = Some((commits, now));
        true
    }

    /// Whether the files outgrow the budget, so that a sweep is due at once.
    pub(super) fn is_over_budget(&self) -> bool {
        self.used.bytes.load(Ordering::Relaxed) > self.max_size()
            || self.used.entries.load(Ordering::Relaxed) > self.max_entries()
    }
}

/// The bytes and files by which a file of `size` bytes makes the cache larger, in the place of `replaced`.
fn needed(size: u64, replaced: Option<&Node>) -> (u64, u64) {
    let freed = replaced.and_then(Node::charged);
    let bytes = super::scan::charge(size).saturating_sub(freed.unwrap_or(0));
    (bytes, u64::from(freed.is_none()))
}
