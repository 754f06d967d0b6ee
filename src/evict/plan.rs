//! The eviction policy: entries, the time and the limits go in, victims with reasons come out. No
//! I/O, no clock.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::config::{Config, KeepFree};

/// Why an entry leaves. The names are the ones that `kidafs stats`, the metrics and `--dry-run`
/// show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Staged, never committed, and untouched for too long: its writer is gone.
    StaleTemp,
    /// Neither committed nor looked up for too long.
    Expired,
    /// A newer source of the same template is committed, and this one has been idle for the grace
    /// period since.
    Superseded,
    /// Nothing of its ABI version was looked up for too long, while another version is in use.
    Foreign,
    /// The directory is over its budget of bytes or entries.
    Budget,
    /// The backing filesystem has too little free space.
    Pressure,
    /// Its content does not match its digest. [`plan`] never gives this reason: it is found when
    /// content is loaded, and acted upon at once.
    Corrupt,
}

impl Reason {
    /// Every reason, in the order in which the rules apply.
    pub const ALL: [Self; 7] = [
        Self::StaleTemp,
        Self::Expired,
        Self::Superseded,
        Self::Foreign,
        Self::Budget,
        Self::Pressure,
        Self::Corrupt,
    ];

    /// The reason's name, as it is shown and stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StaleTemp => "stale-temp",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
            Self::Foreign => "foreign",
            Self::Budget => "budget",
            Self::Pressure => "pressure",
            Self::Corrupt => "corrupt",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What an entry is, which decides the rules that apply to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Its name fits the entry pattern: every rule but `stale-temp`.
    Entry {
        /// Stands for folder, version and template name together: entries with one group are
        /// sources of one template.
        group: u64,
        /// Stands for the source hash. Two entries of one group and one source (they differ in
        /// their context) never supersede each other.
        source: u64,
        /// Stands for the whole version tag, such as `py314_kida0_12_0_ast2`.
        abi: u32,
    },
    /// Any other committed file, such as another engine's entry: `expired`, `budget` and
    /// `pressure`.
    Other,
    /// Uncommitted, or a temporary file that a dead writer left on disk: `stale-temp` only.
    Staged,
}

/// What the policy knows of one file. Small and without heap data, since there may be 100,000 of
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryInfo {
    /// The caller's name for it; [`Victim::id`] gives it back. Unique within a plan.
    pub id: u64,
    /// Which rules apply.
    pub kind: Kind,
    /// When it was committed; of a staged file, when it was last written.
    pub committed_at: SystemTime,
    /// When it was last looked up, as far as that was seen.
    pub last_used: SystemTime,
    /// Bytes.
    pub size: u64,
    /// Never a victim: being written, loaded or pushed at this moment. That the kernel remembers
    /// the inode is no reason to set it: an unlinked file stays readable until the kernel forgets
    /// it, and the kernel remembers nearly all.
    pub in_use: bool,
}

impl EntryInfo {
    /// A commit is a use too: an entry that nobody has looked up yet is as young as its commit.
    fn used(&self) -> SystemTime {
        self.last_used.max(self.committed_at)
    }
}

/// The rules' numbers. A rule whose age is `None` is off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Bytes of committed files.
    pub max_size: u64,
    /// Number of committed files.
    pub max_entries: u64,
    /// `expired`.
    pub max_age: Option<Duration>,
    /// `superseded`.
    pub superseded_grace: Option<Duration>,
    /// `foreign`.
    pub foreign_age: Option<Duration>,
    /// `stale-temp`.
    pub stale_temp: Option<Duration>,
    /// `pressure`.
    pub keep_free: KeepFree,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Self {
            max_size: config.max_size,
            max_entries: config.max_entries,
            max_age: config.max_age,
            superseded_grace: config.superseded_grace,
            foreign_age: config.foreign_age,
            stale_temp: config.stale_temp,
            keep_free: config.keep_free,
        }
    }
}

/// The space on the backing filesystem, as `statvfs` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// Bytes that the daemon may still write.
    pub available: u64,
    /// Bytes of the whole filesystem.
    pub total: u64,
    /// Bytes of an allocation unit: removing a file frees whole units.
    pub unit: u64,
}

/// An entry that leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Victim {
    /// The [`EntryInfo::id`] it came with.
    pub id: u64,
    /// The first rule that chose it, in the order of [`Reason::ALL`].
    pub reason: Reason,
    /// Bytes.
    pub size: u64,
}

/// Chooses the entries that leave, each for one reason.
///
/// `free` is `None` where the backing filesystem's space is unknown; the `pressure` rule is then
/// off. The plan depends neither on the order of `entries` nor on anything but the arguments.
/// Victims come in the order of [`Reason::ALL`], least recently used first within one reason. The
/// cost is O(n log n).
///
/// `budget` and `pressure` need not reach their goal: entries in use stay, and `pressure` cannot
/// free what others have filled.
pub fn plan(
    entries: &[EntryInfo],
    now: SystemTime,
    limits: &Limits,
    free: Option<Free>,
) -> Vec<Victim> {
    let superseded_at = superseded_at(entries);
    let versions = Versions::of(entries, now, limits.foreign_age);
    let mut chosen: Vec<(Reason, &EntryInfo)> = Vec::new();
    let mut kept: Vec<&EntryInfo> = Vec::with_capacity(entries.len());
    let mut usage = Usage::default();

    for (entry, superseded_at) in entries.iter().zip(superseded_at) {
        let reason = if entry.in_use {
            None
        } else {
            by_age(entry, now, limits, superseded_at, &versions)
        };
        match reason {
            Some(reason) => chosen.push((reason, entry)),
            None if entry.kind == Kind::Staged => {}
            None => {
                usage.add(entry);
                if !entry.in_use {
                    kept.push(entry);
                }
            }
        }
    }

    let freed = chosen.iter().map(|(_, entry)| *entry);
    let mut shortage = Shortage::of(free, limits.keep_free, freed);
    let goal = Goal::of(&usage, limits);
    if goal.missed_by(&usage) || shortage.missing() {
        kept.sort_unstable_by_key(|entry| (entry.used(), entry.committed_at, entry.id));
        for entry in kept {
            let reason = if goal.missed_by(&usage) {
                Reason::Budget
            } else if shortage.missing() {
                Reason::Pressure
            } else {
                break;
            };
            usage.remove(entry);
            shortage.free(entry);
            chosen.push((reason, entry));
        }
    }

    chosen.sort_unstable_by_key(|(reason, entry)| {
        (*reason, entry.used(), entry.committed_at, entry.id)
    });
    chosen
        .into_iter()
        .map(|(reason, entry)| Victim {
            id: entry.id,
            reason,
            size: entry.size,
        })
        .collect()
}

/// The rules that look at one entry at a time.
fn by_age(
    entry: &EntryInfo,
    now: SystemTime,
    limits: &Limits,
    superseded_at: Option<SystemTime>,
    versions: &Versions,
) -> Option<Reason> {
    let idle = |since: SystemTime, limit: Option<Duration>| {
        limit.is_some_and(|limit| idle_for(since, now) >= limit)
    };
    match entry.kind {
        Kind::Staged => idle(entry.used(), limits.stale_temp).then_some(Reason::StaleTemp),
        _ if idle(entry.used(), limits.max_age) => Some(Reason::Expired),
        Kind::Entry { .. }
            if superseded_at
                .is_some_and(|at| idle(entry.used().max(at), limits.superseded_grace)) =>
        {
            Some(Reason::Superseded)
        }
        Kind::Entry { abi, .. } if versions.is_foreign(abi) => Some(Reason::Foreign),
        Kind::Entry { .. } | Kind::Other => None,
    }
}

/// The time from `since` to `now`; zero when `since` lies ahead, as after a step of the clock.
fn idle_for(since: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(since).unwrap_or_default()
}

/// For each entry, when the first newer source of its template was committed.
fn superseded_at(entries: &[EntryInfo]) -> Vec<Option<SystemTime>> {
    let mut result = vec![None; entries.len()];
    let mut order: Vec<(u64, SystemTime, u64, usize)> = entries
        .iter()
        .enumerate()
        .filter_map(|(index, entry)| match entry.kind {
            Kind::Entry { group, source, .. } => Some((group, entry.committed_at, source, index)),
            Kind::Other | Kind::Staged => None,
        })
        .collect();
    order.sort_unstable();

    for group in order.chunk_by(|a, b| a.0 == b.0) {
        let mut later = Later::default();
        // Entries committed at the same instant are in no order, so none of them is newer than
        // another.
        for instant in group.chunk_by(|a, b| a.1 == b.1).rev() {
            for (_, _, source, index) in instant {
                result[*index] = later.than(*source);
            }
            later.precede(instant);
        }
    }
    result
}

/// The commits of one template that come after a point in time: the first, and the first of another
/// source than that.
#[derive(Default)]
struct Later {
    first: Option<(u64, SystemTime)>,
    other: Option<(u64, SystemTime)>,
}

impl Later {
    /// The first later commit of a source that is not `source`.
    fn than(&self, source: u64) -> Option<SystemTime> {
        match self.first {
            Some((first, at)) if first != source => Some(at),
            _ => self.other.map(|(_, at)| at),
        }
    }

    /// Takes in the commits of one instant, all earlier than what is here and sorted by source.
    fn precede(&mut self, instant: &[(u64, SystemTime, u64, usize)]) {
        let (Some(lowest), Some(highest)) = (instant.first(), instant.last()) else {
            return;
        };
        let first = (lowest.2, lowest.1);
        self.other = if highest.2 != lowest.2 {
            Some((highest.2, highest.1))
        } else if self.first.is_some_and(|(source, _)| source != first.0) {
            self.first
        } else {
            self.other
        };
        self.first = Some(first);
    }
}

/// Which ABI versions are foreign: idle for the whole period, while another is not.
struct Versions {
    idle: HashMap<u32, bool>,
    any_live: bool,
}

impl Versions {
    fn of(entries: &[EntryInfo], now: SystemTime, foreign_age: Option<Duration>) -> Self {
        let mut idle = HashMap::new();
        let mut any_live = false;
        if let Some(age) = foreign_age {
            for entry in entries {
                if let Kind::Entry { abi, .. } = entry.kind {
                    let this_idle = idle_for(entry.used(), now) >= age;
                    *idle.entry(abi).or_insert(true) &= this_idle;
                    any_live |= !this_idle;
                }
            }
        }
        Self { idle, any_live }
    }

    fn is_foreign(&self, abi: u32) -> bool {
        self.any_live && self.idle.get(&abi).copied().unwrap_or(false)
    }
}

/// What the committed files that stay add up to.
#[derive(Default)]
struct Usage {
    bytes: u64,
    files: u64,
}

impl Usage {
    fn add(&mut self, entry: &EntryInfo) {
        self.bytes = self.bytes.saturating_add(entry.size);
        self.files += 1;
    }

    fn remove(&mut self, entry: &EntryInfo) {
        self.bytes = self.bytes.saturating_sub(entry.size);
        self.files = self.files.saturating_sub(1);
    }
}

/// What `budget` brings the usage down to. A limit that is not crossed sets no goal.
struct Goal {
    bytes: u64,
    files: u64,
}

impl Goal {
    fn of(usage: &Usage, limits: &Limits) -> Self {
        let goal = |used: u64, limit: u64| {
            if used > limit {
                // A sweep that stopped at the limit itself would be due again with the next commit.
                limit - limit / 10
            } else {
                u64::MAX
            }
        };
        Self {
            bytes: goal(usage.bytes, limits.max_size),
            files: goal(usage.files, limits.max_entries),
        }
    }

    fn missed_by(&self, usage: &Usage) -> bool {
        usage.bytes > self.bytes || usage.files > self.files
    }
}

/// The bytes that have to become free on the backing filesystem.
struct Shortage {
    bytes: u64,
    unit: u64,
}

impl Shortage {
    /// What is missing when `freed` has gone. The goal lies a tenth above the limit, for the reason
    /// that [`Goal::of`] gives.
    fn of<'a>(
        free: Option<Free>,
        keep: KeepFree,
        freed: impl Iterator<Item = &'a EntryInfo>,
    ) -> Self {
        let mut shortage = Self { bytes: 0, unit: 1 };
        let Some(free) = free else {
            return shortage;
        };
        let keep = keep.bytes_of(free.total);
        shortage.unit = free.unit.max(1);
        // Staged files are in memory.
        let available = freed
            .filter(|entry| entry.kind != Kind::Staged)
            .fold(free.available, |sum, entry| {
                sum.saturating_add(shortage.allocated(entry))
            });
        if available < keep {
            shortage.bytes = keep.saturating_add(keep / 10).saturating_sub(available);
        }
        shortage
    }

    fn allocated(&self, entry: &EntryInfo) -> u64 {
        entry
            .size
            .checked_next_multiple_of(self.unit)
            .unwrap_or(entry.size)
    }

    fn missing(&self) -> bool {
        self.bytes > 0
    }

    fn free(&mut self, entry: &EntryInfo) {
        self.bytes = self.bytes.saturating_sub(self.allocated(entry));
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
