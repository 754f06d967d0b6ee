//! Carrying out the evictor's plan.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::Vfs;
use super::attr::Kind;
use super::content::is_buffered;
use super::error::{Error, Result};
use super::node::Node;
use super::notice::Notice;
use super::scan::charge;
use crate::config::KeepFree;
use crate::evict::{self, EntryInfo, Free, Limits, Reason, Trigger, Victim};

/// Victims of one round. Between rounds the kernel is given time to forget them, so that the content
/// held for open files does not pile up.
const ROUND: usize = 4_096;

/// How far the last use noted on disk may lag behind, so that noting it costs next to nothing.
const USE_LAG: Duration = Duration::from_secs(600);

/// How a victim's content stays readable for who has it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// As is cheapest: the file itself may be kept open.
    Anyhow,
    /// In memory, so that its space on disk is free at once.
    InMemory,
}

/// Gives the planner short names for folders, versions, templates and sources.
#[derive(Debug)]
pub(super) struct Keys(RandomState);

impl Keys {
    pub(super) fn new() -> Self {
        Self(RandomState::new())
    }

    fn key(&self, parts: impl Hash) -> u64 {
        self.0.hash_one(parts)
    }
}

impl Vfs {
    /// Every file as the planner sees it; those with the inode numbers `spared` are in use.
    fn evictables(&self, spared: &[u64]) -> Vec<EntryInfo> {
        let keys = &self.keys;
        let mut versions: HashMap<String, u32> = HashMap::new();
        let mut all =
            Vec::with_capacity(usize::try_from(self.entries.load(Ordering::Relaxed)).unwrap_or(0));
        self.walk(&mut |node| {
            if node.kind() != Kind::File {
                return;
            }
            let Some(place) = node.place() else { return };
            let stat = node.stat();
            let buffered = is_buffered(node);
            let kind = match self.config.pattern.parse_name(&place.name) {
                _ if self.is_temporary(node) => evict::Kind::Staged,
                Some(name) => {
                    let next = versions.len() as u32;
                    evict::Kind::Entry {
                        group: keys.key((place.parent.ino, name.version, name.name)),
                        source: keys.key(name.source_hash),
                        abi: *versions.entry(name.version.to_owned()).or_insert(next),
                    }
                }
                None => evict::Kind::Other,
            };
            all.push(EntryInfo {
                id: node.ino,
                kind,
                committed_at: stat.attr.mtime,
                last_used: node.last_used(),
                size: charge(stat.attr.size),
                in_use: buffered && kind != evict::Kind::Staged || spared.contains(&node.ino),
            });
        });
        all
    }

    pub(super) fn free(&self) -> Option<Free> {
        let space = self.disk.space().ok()?;
        Some(Free {
            available: space.f_bavail.saturating_mul(space.f_frsize),
            total: space.f_blocks.saturating_mul(space.f_frsize),
            unit: space.f_frsize,
        })
    }

    /// What a sweep would evict now: the file's path, and why.
    pub fn plan(&self) -> Vec<(String, Victim)> {
        let victims = evict::plan(
            &self.evictables(&[]),
            self.now(),
            &Limits::from(&self.config),
            self.free(),
        );
        let named = victims.into_iter().filter_map(|victim| {
            let node = self.node(victim.id).ok()?;
            Some((self.path(&node), victim))
        });
        named.collect()
    }

    /// What wakes the thread that sweeps.
    pub fn sweeper(&self) -> &Trigger {
        &self.sweeper
    }

    /// Sweeps on schedule, and when asked to, until [`Trigger::stop`].
    pub fn run_sweeper(&self) {
        if self.is_over_budget() {
            self.sweeper.ask();
        }
        self.sweeper.run(self.config.sweep_interval, || {
            self.sweep();
        });
    }

    /// Evicts whatever the rules say, and notes on disk what was used. Returns the number evicted.
    ///
    /// For a thread of its own: between rounds it waits for the kernel, which may wait for a request.
    pub fn sweep(&self) -> usize {
        self.counters.sweep_turn();
        let mut evicted = 0;
        loop {
            let (planned, done) = self.sweep_round(&Limits::from(&self.config));
            evicted += done;
            self.notices.settle();
            if planned <= ROUND || done == 0 {
                break;
            }
        }
        self.note_use(USE_LAG);
        self.counters.sweep_turn();
        evicted
    }

    /// One round: returns how many victims there were, and how many of them are gone.
    fn sweep_round(&self, limits: &Limits) -> (usize, usize) {
        let _one_at_a_time = self.sweeping.lock();
        let now = self.now();
        let victims = evict::plan(&self.evictables(&[]), now, limits, self.free());
        let done = victims
            .iter()
            .take(ROUND)
            .filter(|victim| self.evict(victim, now))
            .count();
        (victims.len(), done)
    }

    /// Removes one victim, unless it was used or changed since the plan was made.
    fn evict(&self, victim: &Victim, planned_at: SystemTime) -> bool {
        self.evict_holding(victim, planned_at, Hold::Anyhow)
    }

    fn evict_holding(&self, victim: &Victim, planned_at: SystemTime, hold: Hold) -> bool {
        let Ok(node) = self.node(victim.id) else {
            return false;
        };
        // A mount without writes has staged files too, and nothing else of its own.
        if self.config.read_only && victim.reason != Reason::StaleTemp {
            return false;
        }
        let Some(place) = node.place() else {
            return false;
        };
        let Some(folder) = place.parent.folder() else {
            return false;
        };
        {
            let _names = folder.names.lock();
            let staged = victim.reason == Reason::StaleTemp;
            let used_since = !staged && node.last_used() > planned_at;
            if !node.is_at(&place) || is_buffered(&node) != staged || used_since {
                return false;
            }
            if hold == Hold::InMemory {
                self.hold_in_memory(&node, &place);
            }
            if let Err(error) = self.remove_at(&place.parent, folder, &place.name, &node) {
                log::error!("{:?} cannot be evicted: {error}", place.name);
                return false;
            }
        }
        log::debug!("evicted {:?}: {}", place.name, victim.reason);
        self.counters.evicted(victim.reason, victim.size);
        self.notices.send(Notice::Entry {
            ino: node.ino,
            parent: place.parent.ino,
            name: place.name.to_os_string(),
        });
        true
    }

    /// Makes sure that a file of `size` bytes fits the budget before it is committed, evicting if it must.
    /// `replaced` is the file whose name it takes: what that counts becomes free with the commit, and only then.
    ///
    /// # Errors
    /// ENOSPC if it does not fit whatever is evicted.
    pub(super) fn make_room(&self, size: u64, replaced: Option<&Node>) -> Result<()> {
        let freed = replaced.map_or(0, |node| node.charged.load(Ordering::Acquire));
        let needed = charge(size).saturating_sub(freed.saturating_sub(1));
        let files = u64::from(freed == 0);
        let spared = replaced.map_or([0], |node| [node.ino]);
        let fits = || {
            self.bytes.load(Ordering::Relaxed).saturating_add(needed) <= self.config.max_size
                && self.entries.load(Ordering::Relaxed).saturating_add(files)
                    <= self.config.max_entries
        };
        if fits() {
            return Ok(());
        }
        let limits = Limits {
            max_size: self.config.max_size.saturating_sub(needed),
            max_entries: self.config.max_entries.saturating_sub(files),
            ..Limits::from(&self.config)
        };
        {
            let _one_at_a_time = self.sweeping.lock();
            if fits() {
                return Ok(());
            }
            let now = self.now();
            let victims = evict::plan(&self.evictables(&spared), now, &limits, None);
            victims.iter().take(ROUND).for_each(|victim| {
                self.evict(victim, now);
            });
        }
        fits().then_some(()).ok_or(Error::NoRoom)
    }

    /// The backing filesystem is full: evicts enough for `size` bytes, and what `--keep-free` asks for.
    /// Returns whether anything was evicted, so that another try is worth it. The inodes `spared` stay: they
    /// are what is being written.
    pub(super) fn relieve(&self, size: u64, spared: &[u64]) -> bool {
        let _one_at_a_time = self.sweeping.lock();
        let Some(mut free) = self.free() else {
            return false;
        };
        // The file, and as much again for the directory, its attributes and a concurrent commit.
        let wanted = charge(size).saturating_mul(2).max(1 << 20);
        let keep = self.config.keep_free.bytes_of(free.total).max(wanted);
        // What root may still use of the reserve is no measure: the write has just failed.
        free.available = free.available.min(keep.saturating_sub(wanted));
        let limits = Limits {
            keep_free: KeepFree::Bytes(keep),
            ..Limits::from(&self.config)
        };
        let now = self.now();
        let victims = evict::plan(&self.evictables(spared), now, &limits, Some(free));
        let (mut evicted, mut freed) = (0, 0);
        for victim in victims.iter().take(ROUND) {
            // Held as a file, an open victim would keep its space on disk until the kernel forgets it, and
            // the kernel may be waiting for this very request.
            let hold = if freed < wanted {
                Hold::InMemory
            } else {
                Hold::Anyhow
            };
            if self.evict_holding(victim, now, hold) {
                evicted += 1;
                freed += victim.size;
            }
        }
        log::warn!("the backing filesystem is full: {evicted} entries evicted");
        evicted > 0
    }

    /// Notes the last use of each file in the backing directory (its access time), where what is noted
    /// lags behind by more than `lag`. A restarted daemon begins with that.
    pub fn note_use(&self, lag: Duration) {
        if self.config.read_only {
            return;
        }
        let mut due: Vec<(Arc<Node>, SystemTime)> = Vec::new();
        self.walk(&mut |node| {
            let used = node.last_used();
            let noted = node.meta.lock().attr.atime;
            let lags = used.duration_since(noted).is_ok_and(|behind| behind > lag);
            if node.kind() == Kind::File && self.is_on_disk(node) && lags {
                due.push((Arc::clone(node), used));
            }
        });
        for (node, used) in due {
            let noted = self.on_disk(&node, |dir, name| {
                self.disk.set_times(dir, name, Some(used), None)
            });
            match noted {
                Ok(()) => node.meta.lock().attr.atime = used,
                Err(error) => {
                    log::debug!("the last use of inode {} is not noted: {error}", node.ino)
                }
            }
        }
    }

    /// Whether the files outgrow the budget, so that a sweep is due at once.
    pub(super) fn is_over_budget(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.config.max_size
            || self.entries.load(Ordering::Relaxed) > self.config.max_entries
    }
}
