//! How much room there is, and how much has to be made.

use super::plan::{EntryInfo, Free, Kind, Limits};
use crate::config::KeepFree;

/// What files that stay add up to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    bytes: u64,
    files: u64,
}

impl Usage {
    pub(super) fn add(&mut self, entry: &EntryInfo) {
        self.bytes = self.bytes.saturating_add(entry.size);
        self.files += 1;
    }

    pub(super) fn and(&self, other: &Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            files: self.files + other.files,
        }
    }

    pub(super) fn remove(&mut self, entry: &EntryInfo) {
        self.bytes = self.bytes.saturating_sub(entry.size);
        self.files = self.files.saturating_sub(1);
    }
}

/// What `budget` brings the usage down to. A limit that is not crossed sets no goal.
pub(super) struct Goal {
    bytes: u64,
    files: u64,
}

impl Goal {
    /// The goal, and whether a limit is crossed that evicting all but `fixed` would not reach.
    pub(super) fn of(usage: &Usage, fixed: &Usage, limits: &Limits) -> (Self, bool) {
        let goal = |used: u64, least: u64, limit: u64, adopted: u64| {
            // A sweep that stopped at the limit itself would be due again with the next commit.
            let lower = limit - limit.saturating_sub(adopted) / 10;
            match () {
                () if used <= limit => Some(u64::MAX),
                () if least > limit => None,
                () if least > lower => Some(limit),
                () => Some(lower),
            }
        };
        let bytes = goal(
            usage.bytes,
            fixed.bytes,
            limits.max_size,
            limits.adopted_size,
        );
        let files = goal(
            usage.files,
            fixed.files,
            limits.max_entries,
            limits.adopted_entries,
        );
        let own = Self {
            bytes: bytes.unwrap_or(u64::MAX),
            files: files.unwrap_or(u64::MAX),
        };
        (own, bytes.is_none() || files.is_none())
    }

    pub(super) fn missed_by(&self, usage: &Usage) -> bool {
        usage.bytes > self.bytes || usage.files > self.files
    }
}

/// What has to become free on the backing filesystem.
#[derive(Default)]
pub(super) struct Shortage {
    bytes: Missing,
    inodes: Missing,
    unit: u64,
}

/// How much is missing to a limit, and to the goal a tenth above it, for the reason that [`Goal::of`] gives.
#[derive(Default, Clone, Copy)]
struct Missing {
    to_limit: u64,
    to_goal: u64,
}

impl Missing {
    fn of(available: u64, keep: u64) -> Self {
        if available >= keep {
            return Self::default();
        }
        Self {
            to_limit: keep - available,
            to_goal: keep.saturating_add(keep / 10) - available,
        }
    }

    /// Gives up what `most` cannot fill; true if not even the limit can be reached.
    fn limit_to(&mut self, most: u64) -> bool {
        let out_of_reach = most < self.to_limit;
        if out_of_reach {
            *self = Self::default();
        } else if most < self.to_goal {
            self.to_goal = self.to_limit;
        }
        out_of_reach
    }

    fn fill(&mut self, by: u64) {
        self.to_goal = self.to_goal.saturating_sub(by);
    }
}

impl Shortage {
    /// What is missing when `freed` has gone.
    pub(super) fn of<'a>(
        free: Option<Free>,
        keep: KeepFree,
        freed: impl Iterator<Item = &'a EntryInfo>,
    ) -> Self {
        let mut shortage = Self {
            unit: 1,
            ..Self::default()
        };
        let Some(free) = free else {
            return shortage;
        };
        shortage.unit = free.unit.max(1);
        let (mut bytes, mut inodes) = (free.available, free.inodes);
        // Staged files are in memory.
        for entry in freed.filter(|entry| entry.kind != Kind::Staged) {
            bytes = bytes.saturating_add(shortage.allocated(entry));
            inodes = inodes.saturating_add(1);
        }
        shortage.bytes = Missing::of(bytes, keep.bytes_of(free.total));
        shortage.inodes = Missing::of(inodes, keep.inodes_of(free.total_inodes));
        shortage
    }

    /// Gives up what evicting all of `kept` would not reach; true if there is such a thing.
    pub(super) fn limit_to(&mut self, kept: &[&EntryInfo]) -> bool {
        if !self.missing() {
            return false;
        }
        let most = kept.iter().fold(0_u64, |sum, entry| {
            sum.saturating_add(self.allocated(entry))
        });
        let bytes = self.bytes.limit_to(most);
        self.inodes.limit_to(kept.len() as u64) || bytes
    }

    fn allocated(&self, entry: &EntryInfo) -> u64 {
        entry
            .size
            .checked_next_multiple_of(self.unit)
            .unwrap_or(entry.size)
    }

    pub(super) fn missing(&self) -> bool {
        self.bytes.to_goal > 0 || self.inodes.to_goal > 0
    }

    pub(super) fn free(&mut self, entry: &EntryInfo) {
        self.bytes.fill(self.allocated(entry));
        self.inodes.fill(1);
    }
}
