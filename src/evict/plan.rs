//! The eviction policy: entries, the time and the limits go in, victims with reasons come out. No
//! I/O, no clock.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::space::{Goal, Shortage, Usage};
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
    /// The source is now that of another entry; or, where sources cannot be seen, a newer source of the same
    /// template is committed, and this one has been idle since.
    Superseded,
    /// The source is gone.
    Orphaned,
    /// Nothing of its ABI version was looked up for too long, while another version is in use.
    ForeignVersion,
    /// The directory is over its budget of bytes or entries.
    Budget,
    /// The backing filesystem has too little free space.
    Pressure,
    /// Its content does not match its digest. [`plan`] never gives this reason: it is found when
    /// content is loaded, and acted upon at once.
    Corrupt,
    /// It has no right seal, where nothing is served without one. As [`Reason::Corrupt`], never a plan's.
    Unsealed,
}

impl Reason {
    /// Every reason, in the order in which the rules apply.
    pub const ALL: [Self; 9] = [
        Self::StaleTemp,
        Self::Expired,
        Self::Superseded,
        Self::Orphaned,
        Self::ForeignVersion,
        Self::Budget,
        Self::Pressure,
        Self::Corrupt,
        Self::Unsealed,
    ];

    /// The reason's name, as it is shown and stored.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StaleTemp => "stale-temp",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
            Self::Orphaned => "orphaned",
            Self::ForeignVersion => "foreign-version",
            Self::Budget => "budget",
            Self::Pressure => "pressure",
            Self::Corrupt => "corrupt",
            Self::Unsealed => "unsealed",
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
    /// Another engine's entry: every rule but those that compare versions and sources by name.
    Other,
    /// A module that Mako has made. Mako reads it for as long as a process lives, so it leaves only when its source
    /// has shown it to be out of date: `superseded` and `orphaned`.
    Module,
    /// Uncommitted, and in memory: `stale-temp` only.
    Staged,
    /// A temporary file that a dead writer left on disk: `stale-temp` only, and it takes space until then.
    LeftOver,
    /// No cache entry. It takes space, and never leaves.
    Foreign,
}

/// What an entry's source says of it, as far as it could be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdict {
    /// Nothing: it cannot be seen from here, or matches nothing.
    #[default]
    Unknown,
    /// The source is as it was when the entry was made.
    Fresh,
    /// The source is now that of another entry.
    Superseded {
        /// Since when that is known.
        since: SystemTime,
    },
    /// The source is gone.
    Orphaned {
        /// Since when that is known.
        since: SystemTime,
    },
}

/// What the policy knows of one file. Small and without heap data, since there may be 100,000 of
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryInfo {
    /// The caller's name for it; [`Victim::id`] gives it back. Unique within a plan.
    pub id: u64,
    /// Which rules apply.
    pub kind: Kind,
    /// What its source says.
    pub verdict: Verdict,
    /// When it was committed; of a temporary file, when it was last written. On a clock that only goes forward, as all
    /// times here.
    pub committed_at: SystemTime,
    /// When it was last looked up, as far as that was seen.
    pub last_used: SystemTime,
    /// Bytes on disk.
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

/// How much longer an entry must be idle that is superseded by its name only: two templates may have one name.
pub const BY_NAME: u32 = 12;

/// The rules' numbers. A rule whose age is `None` is off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Bytes of committed files.
    pub max_size: u64,
    /// Number of committed files.
    pub max_entries: u64,
    /// How much of `max_size` is there for files that were no business of the cache's before it began.
    pub adopted_size: u64,
    /// The same of `max_entries`.
    pub adopted_entries: u64,
    /// `expired`.
    pub max_age: Option<Duration>,
    /// `superseded`, where the source has shown it; [`BY_NAME`] times as long where only names have.
    pub superseded_grace: Option<Duration>,
    /// `orphaned`.
    pub orphaned_grace: Option<Duration>,
    /// `foreign-version`.
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
            adopted_size: 0,
            adopted_entries: 0,
            max_age: config.max_age,
            superseded_grace: config.superseded_grace,
            orphaned_grace: config.orphaned_grace,
            foreign_age: config.foreign_age,
            stale_temp: config.stale_temp,
            keep_free: config.keep_free,
        }
    }
}

/// The space on the backing filesystem, as `statvfs` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Free {
    /// Bytes that the daemon may still write.
    pub available: u64,
    /// Bytes of the whole filesystem.
    pub total: u64,
    /// Bytes of an allocation unit: removing a file frees whole units.
    pub unit: u64,
    /// Inodes that the daemon may still make.
    pub inodes: u64,
    /// Inodes of the whole filesystem; 0 where they are not counted.
    pub total_inodes: u64,
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

/// What leaves, and what cannot be reached by that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The entries that leave, in the order of [`Reason::ALL`]; within `budget` and `pressure` in the order in which
    /// they go, else least recently used first.
    pub victims: Vec<Victim>,
    /// The files that are no entries leave too little of `max_size` or `max_entries`: nothing is evicted for that.
    pub budget_out_of_reach: bool,
    /// Evicting everything would not leave as much free as `keep_free` says: nothing is evicted for that.
    pub pressure_out_of_reach: bool,
}

/// Chooses the entries that leave, each for one reason.
///
/// `free` is `None` where the backing filesystem's space is unknown; the `pressure` rule is then
/// off. The plan depends neither on the order of `entries` nor on anything but the arguments.
/// The cost is O(n log n).
///
/// Nothing is evicted for a goal that evicting cannot reach. Where a goal is reached only just, it is the limit itself
/// and not a tenth below it.
pub fn plan(entries: &[EntryInfo], now: SystemTime, limits: &Limits, free: Option<Free>) -> Plan {
    let superseded_at = superseded_at(entries);
    let versions = Versions::of(entries, now, limits.foreign_age);
    let mut chosen: Vec<(Reason, &EntryInfo)> = Vec::new();
    let mut kept: Vec<&EntryInfo> = Vec::with_capacity(entries.len());
    let mut fixed = Usage::default();
    let mut movable = Usage::default();

    for (entry, superseded_at) in entries.iter().zip(superseded_at) {
        let reason = if entry.in_use {
            None
        } else {
            by_age(entry, now, limits, superseded_at, &versions)
        };
        match (reason, entry.kind) {
            (Some(reason), _) => chosen.push((reason, entry)),
            (None, Kind::Staged) => {}
            (None, Kind::Entry { .. } | Kind::Other) if !entry.in_use => {
                movable.add(entry);
                kept.push(entry);
            }
            (None, _) => fixed.add(entry),
        }
    }

    let freed = chosen.iter().map(|(_, entry)| *entry);
    let mut shortage = Shortage::of(free, limits.keep_free, freed);
    let pressure_out_of_reach = shortage.limit_to(&kept);
    let mut usage = fixed.and(&movable);
    let (goal, budget_out_of_reach) = Goal::of(&usage, &fixed, limits);
    let mut victims = by_order(chosen);
    if goal.missed_by(&usage) || shortage.missing() {
        kept.sort_unstable_by_key(|entry| {
            (
                turn(entry, limits),
                entry.used(),
                entry.committed_at,
                entry.id,
            )
        });
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
            victims.push(Victim::of(entry, reason));
        }
    }
    Plan {
        victims,
        budget_out_of_reach,
        pressure_out_of_reach,
    }
}

impl Victim {
    fn of(entry: &EntryInfo, reason: Reason) -> Self {
        Self {
            id: entry.id,
            reason,
            size: entry.size,
        }
    }
}

fn by_order(mut chosen: Vec<(Reason, &EntryInfo)>) -> Vec<Victim> {
    chosen.sort_unstable_by_key(|(reason, entry)| {
        (*reason, entry.used(), entry.committed_at, entry.id)
    });
    let victims = chosen.into_iter();
    victims
        .map(|(reason, entry)| Victim::of(entry, reason))
        .collect()
}

/// Who goes first when there is too little room: what is larger than all of it, what is out of date, then what is not
/// known to be fresh.
fn turn(entry: &EntryInfo, limits: &Limits) -> u8 {
    match entry.verdict {
        _ if entry.size > limits.max_size => 0,
        Verdict::Superseded { .. } | Verdict::Orphaned { .. } => 1,
        Verdict::Unknown => 2,
        Verdict::Fresh => 3,
    }
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
        Kind::Foreign => return None,
        Kind::Staged | Kind::LeftOver => {
            return idle(entry.used(), limits.stale_temp).then_some(Reason::StaleTemp);
        }
        Kind::Entry { .. } | Kind::Other | Kind::Module => {}
    }
    // Use outweighs both: the same entry may be in use for a source of the same content elsewhere.
    match entry.verdict {
        Verdict::Fresh => return None,
        Verdict::Superseded { since } if idle(entry.used().max(since), limits.superseded_grace) => {
            return Some(Reason::Superseded);
        }
        Verdict::Orphaned { since } if idle(entry.used().max(since), limits.orphaned_grace) => {
            return Some(Reason::Orphaned);
        }
        _ => {}
    }
    let by_name = limits
        .superseded_grace
        .map(|grace| grace.saturating_mul(BY_NAME));
    match entry.kind {
        Kind::Module => None,
        _ if idle(entry.used(), limits.max_age) => Some(Reason::Expired),
        Kind::Entry { .. }
            if entry.verdict == Verdict::Unknown
                && superseded_at.is_some_and(|at| idle(entry.used().max(at), by_name)) =>
        {
            Some(Reason::Superseded)
        }
        Kind::Entry { abi, .. } if versions.is_foreign(abi) => Some(Reason::ForeignVersion),
        _ => None,
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
            _ => None,
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
                    let this_idle =
                        entry.verdict != Verdict::Fresh && idle_for(entry.used(), now) >= age;
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

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "plan_laws.rs"]
mod laws;
