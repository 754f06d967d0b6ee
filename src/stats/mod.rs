//! What a daemon tells about itself: the contents of `.kidafs/stats.json`,
//! `.kidafs/entries.jsonl` and, from the same facts, `.kidafs/metrics`.
//!
//! The daemon writes these structures and the command line reads them. Units are part of the names.
//! Fields may be added; a reader ignores those that it does not know, and takes 0 for those that
//! are missing.

pub mod metrics;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::evict::Reason;
use crate::format::name::is_counted;

/// A daemon's state and its counters since it started.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// The daemon's version, as in `kidafs --version`.
    pub version: String,
    /// The daemon's process.
    pub pid: u32,
    /// Where it is mounted.
    pub mount_point: String,
    /// Where entries are kept; the mount point itself unless `--backing` says otherwise.
    pub backing: String,
    /// Since the mount answered.
    pub uptime_seconds: f64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether each entry's digest is stored and checked. It is not where the backing filesystem
    /// has no user extended attributes.
    pub digests: bool,
    /// What the kernel agreed to: the names of libfuse's capabilities, in lower case.
    pub kernel: Vec<String>,
    /// What the engine's `stats()` counts: files in the mount's root by the names of its entries.
    pub file_count: u64,
    /// Their bytes.
    pub total_bytes: u64,
    /// Content kept in memory.
    pub memory: Tier,
    /// Content that is not committed yet.
    pub staging: Tier,
    /// Content that was replaced, evicted or removed while it was open: bytes in memory, and files held by a descriptor.
    pub orphans: Tier,
    /// Directories and symbolic links, which count apart from the entries.
    pub folders_and_links: Tier,
    /// Content in the backing directory.
    pub disk: Tier,
    /// Entries by engine and by what their sources say (`fresh`, `superseded`, `orphaned`, `unknown`), as of the latest
    /// look; empty where sources are not looked at.
    pub verdicts: BTreeMap<String, BTreeMap<String, u64>>,
    /// Files in the backing directory that are no cache entries, and their bytes: never evicted.
    pub foreign: Tier,
    /// Whether those files leave too little of the budget, which evicting cannot change.
    pub budget_out_of_reach: bool,
    /// Whether the backing filesystem has less free than is to be kept, and evicting everything would not change that.
    pub free_space_out_of_reach: bool,
    /// Bytes that the backing filesystem has left for this user.
    pub backing_available_bytes: u64,
    /// Bytes of the whole backing filesystem.
    pub backing_total_bytes: u64,
    /// Bytes of its allocation unit.
    pub backing_block_bytes: u64,
    /// Look-ups of file names that reached the daemon. Most hits do not: the kernel answers them by
    /// itself.
    pub lookups: Lookups,
    /// Files that were renamed into place, or written in place and persisted.
    pub commits: u64,
    /// The time that a commit's rename took in the daemon.
    pub commit_latency: Histogram,
    /// Times that the evictor has gone through all files, whether or not it found a victim.
    pub sweeps: u64,
    /// Whether it is doing so now.
    pub sweeping: bool,
    /// Files that were removed, by reason. A reason that is missing has not occurred.
    pub evictions: BTreeMap<Reason, u64>,
    /// Bytes that these evictions freed.
    pub evicted_bytes: u64,
    /// Entries that are set aside because their content did not match their digest.
    pub quarantined: u64,
    /// Files, links and folders in the backing directory that are not served: another user could have written them.
    #[serde(default)]
    pub unserved: u64,
    /// Whether nothing is served without a right seal.
    #[serde(default)]
    pub sealed: bool,
    /// Messages from the kernel, by operation in lower case (`lookup`, `read`).
    pub requests: BTreeMap<String, u64>,
    /// Time that readers spent polling for the next message instead of sleeping.
    pub poll_seconds: f64,
    /// Time for which the CPU-latency request was held, up to the end of the last burst.
    pub latency_held_seconds: f64,
    /// Replies that were errors, by the errno's name (`ENOENT`, `ENOSPC`).
    pub errors: BTreeMap<String, u64>,
}

/// What is in one tier, and how much may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tier {
    /// Content.
    pub bytes: u64,
    /// The limit of `bytes`.
    pub budget_bytes: u64,
    /// Number of files.
    pub files: u64,
    /// The limit of `files`, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_files: Option<u64>,
}

/// Look-ups that the daemon saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Lookups {
    /// The name was there.
    pub hits: u64,
    /// It was not.
    pub misses: u64,
}

/// Durations, counted by size.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Histogram {
    /// In ascending order. Each counts the durations above the one before it and up to its own
    /// bound.
    pub buckets: Vec<Bucket>,
    /// Durations above the last bucket's bound.
    pub beyond: u64,
    /// All durations together.
    pub sum_microseconds: u64,
}

/// The durations up to a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Bucket {
    /// The bound, included.
    pub up_to_microseconds: u64,
    /// How many.
    pub count: u64,
}

impl Stats {
    /// The share of its life for which the daemon held the CPU-latency request, from 0.0 to 1.0.
    pub fn latency_held_share(&self) -> f64 {
        if self.uptime_seconds > 0.0 {
            (self.latency_held_seconds / self.uptime_seconds).clamp(0.0, 1.0)
        } else {
            0.0
        }
    }
}

impl Histogram {
    /// Number of durations.
    pub fn count(&self) -> u64 {
        let buckets = self.buckets.iter().map(|bucket| bucket.count);
        buckets.fold(self.beyond, u64::saturating_add)
    }

    /// The bound of the bucket that holds the given share of all durations, 0.5 for the median.
    /// `None` when there are no durations or when it lies beyond the last bound.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        let wanted = ((count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0u64;
        for bucket in &self.buckets {
            seen = seen.saturating_add(bucket.count);
            if count > 0 && seen >= wanted {
                return Some(Duration::from_micros(bucket.up_to_microseconds));
            }
        }
        None
    }
}

/// A line of `entries.jsonl`: one file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EntryRow {
    /// From the mount's root. What is not UTF-8 in it is replaced.
    pub path: String,
    /// Its number while the daemon lives; never another file's. [`BY_INODE`](crate::layout::BY_INODE) opens it by that.
    pub inode: u64,
    /// Content.
    pub size_bytes: u64,
    /// When it was committed, or, in staging, last written; see [`unix_seconds`].
    pub committed_unix_seconds: f64,
    /// When it was last looked up, as far as that was seen.
    pub used_unix_seconds: f64,
    /// The fastest tier that holds it.
    pub tier: Place,
    /// Whether the evictor leaves it alone at the moment.
    pub in_use: bool,
    /// Whose entry it is, if that was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The file that it was made of, as it says itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What that file says of it: `fresh`, `superseded`, `orphaned` or `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Whether it is no cache entry, as far as that is known without reading it: it is never evicted.
    pub foreign: bool,
    /// How it is framed (`legacy`, `v2`, `v3`, `v4`), if it is an entry and the daemon has seen its
    /// content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

impl EntryRow {
    /// Whether the engine's `stats`, `clear` and `cleanup` are about this file.
    pub fn is_counted(&self) -> bool {
        !self.path.contains('/') && is_counted(OsStr::new(&self.path))
    }
}

/// A line of `plan.jsonl`: a file that a sweep would remove now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRow {
    /// From the mount's root. What is not UTF-8 in it is replaced.
    pub path: String,
    /// The rule by which it goes.
    pub reason: Reason,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// What has shown it, if a source has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

/// Where a file's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In memory, and in the backing directory.
    Memory,
    /// In the backing directory only.
    #[default]
    Disk,
    /// In memory only: not committed.
    Staging,
}

/// Seconds since the epoch, to about a microsecond; negative before it.
pub fn unix_seconds(time: SystemTime) -> f64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

/// The time of [`unix_seconds`]; the epoch for what is no time.
pub fn time_of(unix_seconds: f64) -> SystemTime {
    let distance = Duration::try_from_secs_f64(unix_seconds.abs()).unwrap_or_default();
    let time = if unix_seconds < 0.0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_missing_fields_do_not_matter() {
        let stats: Stats = serde_json::from_str(r#"{"pid": 7, "colour": "red"}"#).unwrap();
        assert_eq!(stats.pid, 7);
        assert_eq!(stats.commits, 0);
    }

    #[test]
    fn evictions_are_told_by_reason() {
        let mut stats = Stats::default();
        stats.evictions.insert(Reason::StaleTemp, 3);
        let json = serde_json::to_string(&stats).unwrap();
        assert!(json.contains(r#""evictions":{"stale-temp":3}"#), "{json}");
        assert_eq!(serde_json::from_str::<Stats>(&json).unwrap(), stats);
    }

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        let bucket = |up_to_microseconds, count| Bucket {
            up_to_microseconds,
            count,
        };
        let histogram = Histogram {
            buckets: vec![bucket(10, 50), bucket(100, 49)],
            beyond: 1,
            sum_microseconds: 0,
        };
        assert_eq!(histogram.quantile(0.5), Some(Duration::from_micros(10)));
        assert_eq!(histogram.quantile(0.51), Some(Duration::from_micros(100)));
        assert_eq!(histogram.quantile(1.0), None);
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn times_go_there_and_back_whatever_they_are() {
        for seconds in [0.0, -86400.5, 1.7e9, 2.5e11] {
            assert_eq!(unix_seconds(time_of(seconds)), seconds);
        }
        for nonsense in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300] {
            assert_eq!(time_of(nonsense), UNIX_EPOCH);
        }
    }
}
