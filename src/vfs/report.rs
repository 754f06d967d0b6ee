//! What the daemon tells about itself.

use std::fmt::{Debug, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Vfs;
use super::attr::Kind;
use super::content::is_buffered;
use crate::evict::Victim;
use crate::format::Format;
use crate::format::name::is_counted;
use crate::stats::{EntryRow, Place, PlanRow, Stats, Tier, metrics, unix_seconds};
use crate::stop::Stop;

/// What the core cannot know by itself.
#[derive(Debug, Clone)]
pub struct About {
    /// Where it is mounted.
    pub mount_point: String,
    /// Where entries are kept.
    pub backing: String,
    /// The options with their origins, as JSON.
    pub settings: String,
    /// Since when it serves.
    pub started: Instant,
    /// Whether its end has begun: then it stops reading in, sweeping and evicting.
    pub stop: Stop,
}

/// What the layer above the core knows about a daemon.
pub trait Supplement: Debug + Send + Sync {
    /// Fills in the fields that the core leaves at their defaults.
    fn add_to(&self, stats: &mut Stats);
}

impl Default for About {
    fn default() -> Self {
        Self {
            mount_point: String::new(),
            backing: String::new(),
            settings: "{}\n".to_owned(),
            started: Instant::now(),
            stop: Stop::default(),
        }
    }
}

impl Vfs {
    /// The state and the counters.
    pub fn stats(&self) -> Stats {
        let counters = &self.counters;
        let free = self.free();
        let (sweeps, sweeping) = counters.sweeps();
        let (budget_out_of_reach, free_space_out_of_reach) = self.out_of_reach();
        let (file_count, total_bytes) = self.counted();
        let mut stats = Stats {
            file_count,
            total_bytes,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            mount_point: self.about.mount_point.clone(),
            backing: self.about.backing.clone(),
            uptime_seconds: self.about.started.elapsed().as_secs_f64(),
            read_only: self.config.read_only,
            digests: self.disk.has_digests(),
            memory: Tier {
                bytes: self.memory.bytes(),
                budget_bytes: self.memory.budget(),
                files: self.memory.entries(),
                budget_files: None,
            },
            staging: Tier {
                bytes: self.staging.bytes().used(),
                budget_bytes: self.staging.bytes().limit(),
                files: self.staging.files().used(),
                budget_files: Some(self.staging.files().limit()),
            },
            disk: Tier {
                bytes: self.used.bytes.load(Ordering::Relaxed),
                budget_bytes: self.max_size(),
                files: self.used.entries.load(Ordering::Relaxed),
                budget_files: Some(self.max_entries()),
            },
            orphans: Tier {
                bytes: self.orphans.bytes.used(),
                budget_bytes: self.orphans.bytes.limit(),
                files: self.orphans.descriptors.used(),
                budget_files: Some(self.orphans.descriptors.limit()),
            },
            folders_and_links: Tier {
                files: self.folders_and_links.used(),
                budget_files: Some(self.folders_and_links.limit()),
                ..Tier::default()
            },
            verdicts: self.verdicts(),
            foreign: Tier {
                bytes: self.foreign.bytes(),
                files: self.foreign.files(),
                ..Tier::default()
            },
            budget_out_of_reach,
            free_space_out_of_reach,
            backing_available_bytes: free.map_or(0, |free| free.available),
            backing_total_bytes: free.map_or(0, |free| free.total),
            backing_block_bytes: free.map_or(0, |free| free.unit),
            lookups: counters.lookups(),
            commits: counters.commits.load(Ordering::Relaxed),
            commit_latency: counters.commit_latency(),
            sweeps,
            sweeping,
            evictions: counters.evictions(),
            evicted_bytes: counters.evicted_bytes(),
            quarantined: self.disk.quarantined(),
            unserved: counters.unserved(),
            sealed: self.disk.is_sealed(),
            requests: counters.requests(),
            errors: counters.errors(),
            ..Stats::default()
        };
        if let Some(supplement) = self.supplement.get() {
            supplement.add_to(&mut stats);
        }
        stats
    }

    pub(super) fn stats_json(&self) -> Vec<u8> {
        json_line(&self.stats())
    }

    pub(super) fn metrics(&self) -> Vec<u8> {
        metrics::render(&self.stats()).into_bytes()
    }

    /// The service ends: the threads that persist and sweep are to end, and nothing is evicted any more.
    pub fn stop(&self) {
        self.about.stop.begin();
        self.stop_persister();
        self.sweeper.stop();
    }

    /// Has `supplement` add to the statistics from now on; the first one stays.
    pub fn supplement(&self, supplement: Arc<dyn Supplement>) {
        let _ = self.supplement.set(supplement);
    }

    pub(super) fn config_json(&self) -> Vec<u8> {
        self.about.settings.clone().into_bytes()
    }

    /// A line of JSON for each file.
    pub(super) fn entries_jsonl(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        self.walk(&mut |node| {
            if node.kind() != Kind::File {
                return;
            }
            let stat = node.stat();
            let tier = match () {
                () if is_buffered(node) => Place::Staging,
                () if self.memory.contains(node.ino) => Place::Memory,
                () => Place::Disk,
            };
            let head = self.memory.peek(node.ino);
            let format = head.and_then(|content| Format::of_head(&content));
            let origin = self.origin(node);
            lines.extend(json_line(&EntryRow {
                path: self.path(node),
                inode: node.ino,
                size_bytes: stat.attr.size,
                committed_unix_seconds: unix_seconds(stat.attr.mtime),
                used_unix_seconds: unix_seconds(self.time_of_day(node.standing.used())),
                tier,
                in_use: tier == Place::Staging,
                foreign: self.is_foreign(node),
                engine: origin.as_ref().map(|origin| origin.0.as_str().to_owned()),
                verdict: origin
                    .as_ref()
                    .map(|_| node.standing.opinion().name().to_owned()),
                source: origin
                    .and_then(|origin| origin.1)
                    .map(|path| path.to_string_lossy().into_owned()),
                format: format
                    .filter(|_| self.is_entry(node))
                    .map(|format| format.to_string()),
            }));
        });
        lines
    }

    /// A line of JSON for each victim of a sweep that would be made now.
    pub(super) fn plan_jsonl(&self) -> Vec<u8> {
        let plan = self.plan().into_iter();
        plan.flat_map(|(path, victim)| json_line(&self.plan_row(path, &victim)))
            .collect()
    }

    fn plan_row(&self, path: String, victim: &Victim) -> PlanRow {
        PlanRow {
            path,
            reason: victim.reason,
            size_bytes: victim.size,
            evidence: self
                .node(victim.id)
                .ok()
                .and_then(|node| self.evidence(&node)),
        }
    }

    /// What the first sweep would remove, if the directory were served with the right to write.
    pub fn first_sweep(&self) -> Vec<PlanRow> {
        let plan = self.plan_with_right().into_iter();
        plan.map(|(path, victim)| self.plan_row(path, &victim))
            .collect()
    }

    /// What the engine's own `stats()` would count, and their bytes.
    fn counted(&self) -> (u64, u64) {
        let (mut files, mut bytes) = (0, 0);
        for node in self.root.nodes() {
            if node.kind() == Kind::File
                && node.place().is_some_and(|place| is_counted(&place.name))
            {
                files += 1;
                bytes += node.stat().attr.size;
            }
        }
        (files, bytes)
    }

    /// The paths of files with content that is to be in the backing directory and is not yet.
    pub fn unwritten(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.walk(&mut |node| {
            if is_buffered(node) && !self.is_temporary(node) {
                paths.push(self.path(node));
            }
        });
        paths
    }

    fn is_entry(&self, node: &super::node::Node) -> bool {
        let place = node.place();
        place.is_some_and(|place| self.config.pattern.parse_name(&place.name).is_some())
    }

    /// An inode's path from the root, for people to read: what is not UTF-8 is replaced.
    pub(super) fn path(&self, node: &super::node::Node) -> String {
        let mut parts = Vec::new();
        let mut place = node.place();
        while let Some(at) = place {
            parts.push(at.name);
            place = at.parent.place();
        }
        let mut path = String::new();
        for part in parts.iter().rev() {
            let separator = if path.is_empty() { "" } else { "/" };
            // Writing to a string cannot fail.
            let _ = write!(path, "{separator}{}", part.to_string_lossy());
        }
        path
    }
}

fn json_line(value: &impl serde::Serialize) -> Vec<u8> {
    // These structures have string keys and finite numbers only, which serialise without fail.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}
