//! Carrying out the evictor's plan.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::Vfs;
use super::attr::Kind;
use super::content::is_buffered;
use super::dir::Dir;
use super::last_use::USE_LAG;
use super::node::{Node, Place};
use super::notice::Notice;
use super::standing::Whose;
use crate::config::KeepFree;
use crate::evict::{self, EntryInfo, Free, Limits, Plan, Reason, Trigger, Victim};
use crate::format::engine::Engine;

/// Victims of one round. Between rounds the kernel is given time to forget them, so that the content
/// held for open files does not pile up.
pub(super) const ROUND: usize = 4_096;

/// Victims between which nobody else who needs room gets his turn.
const AT_ONCE: usize = 16;

/// How a victim's content stays readable for who has it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// As is cheapest: the file itself may be kept open.
    Anyhow,
    /// In memory, so that its space on disk is free at once.
    InMemory,
}

/// What is to fit beside what stays.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Need {
    /// Of the budget.
    pub(super) bytes: u64,
    pub(super) files: u64,
    /// On the backing filesystem, instead of what is to be left free.
    pub(super) free: Option<KeepFree>,
}

/// What the evictor remembers.
#[derive(Debug, Default)]
pub(super) struct Evictor {
    /// Gives the planner short names for folders, versions, templates and sources.
    keys: RandomState,
    /// The latest plan's victims that are left, in their order, and when it was made.
    queue: Mutex<Queue>,
    /// Files stored beyond the limit since the latest plan, because it was not made yet.
    pub(super) waved: AtomicU64,
    /// What was said to be out of reach: it is said once.
    pub(super) budget_told: AtomicBool,
    pressure_told: AtomicBool,
    /// Commits at the time when room was made on a full disk.
    pub(super) relieved_at: Mutex<Option<(u64, SystemTime)>>,
}

#[derive(Debug, Default)]
struct Queue {
    victims: VecDeque<Victim>,
    planned_at: Option<SystemTime>,
}

impl Evictor {
    pub(super) fn key(&self, parts: impl Hash) -> u64 {
        self.keys.hash_one(parts)
    }

    pub(super) fn next(&self) -> Option<(Victim, SystemTime)> {
        let mut queue = self.queue.lock();
        let victim = queue.victims.pop_front()?;
        Some((victim, queue.planned_at?))
    }
}

impl Vfs {
    /// Every file as the planner sees it; those with the inode numbers `spared` are in use.
    fn evictables(&self, spared: &[u64]) -> Vec<EntryInfo> {
        let mut versions: HashMap<String, u32> = HashMap::new();
        // Made at its full size, so that its memory is given back whole.
        let expected = self.used.entries.load(Ordering::Relaxed) + self.staging.files().used();
        let mut all = Vec::with_capacity(usize::try_from(expected).unwrap_or(0) + 64);
        self.walk(&mut |node| {
            if node.kind() != Kind::File {
                return;
            }
            let Some(place) = node.place() else { return };
            let buffered = is_buffered(node);
            let charged = node.charged();
            let kind = self.kind_for_plan(node, &place, charged.is_some(), &mut versions);
            all.push(EntryInfo {
                id: node.ino,
                kind,
                verdict: node.standing.verdict(),
                committed_at: node.standing.committed(),
                last_used: node.standing.used(),
                size: charged.unwrap_or(0),
                in_use: buffered && kind != evict::Kind::Staged || spared.contains(&node.ino),
            });
        });
        all
    }

    fn kind_for_plan(
        &self,
        node: &Node,
        place: &Place,
        on_disk: bool,
        versions: &mut HashMap<String, u32>,
    ) -> evict::Kind {
        match self.whose(node, &place.name) {
            Whose::Foreign => evict::Kind::Foreign,
            Whose::Temporary(_) if on_disk => evict::Kind::LeftOver,
            Whose::Temporary(_) => evict::Kind::Staged,
            Whose::Entry(Engine::Mako) => evict::Kind::Module,
            Whose::Entry(Engine::Jinja2 | Engine::Importlib) => evict::Kind::Other,
            Whose::Entry(Engine::Kida) => match self.config.pattern.parse_name(&place.name) {
                None => evict::Kind::Other,
                Some(name) => {
                    let abi = match versions.get(name.version) {
                        Some(abi) => *abi,
                        None => {
                            let next = versions.len() as u32;
                            versions.insert(name.version.to_owned(), next);
                            next
                        }
                    };
                    let evictor = &self.evictor;
                    evict::Kind::Entry {
                        group: evictor.key((
                            place.parent.ino,
                            name.version,
                            name.name,
                            node.standing.source(),
                        )),
                        source: evictor.key(name.source_hash),
                        abi,
                    }
                }
            },
        }
    }

    pub(super) fn free(&self) -> Option<Free> {
        let space = self.disk.space().ok()?;
        Some(Free {
            available: space.f_bavail.saturating_mul(space.f_frsize),
            total: space.f_blocks.saturating_mul(space.f_frsize),
            unit: space.f_frsize,
            inodes: space.f_favail,
            total_inodes: space.f_files,
        })
    }

    fn limits(&self) -> Limits {
        Limits {
            max_size: self.max_size(),
            max_entries: self.max_entries(),
            adopted_size: self.adopted.bytes(),
            adopted_entries: self.adopted.files(),
            ..Limits::from(&self.config)
        }
    }

    /// The victims by the rules. What they say by a file's name only is made sure of by its form, for all of them: a
    /// foreign file among them takes somebody else's turn.
    pub(super) fn plan_for(&self, need: Need, free: Option<Free>, spared: &[u64]) -> Plan {
        let mut entries = self.evictables(spared);
        // These names are anybody's, and what has them counts as an entry or not.
        let doubtful = |kind| matches!(kind, evict::Kind::LeftOver | evict::Kind::Module);
        for entry in entries.iter_mut().filter(|entry| doubtful(entry.kind)) {
            if self.is_foreign_victim(entry.id) {
                entry.kind = evict::Kind::Foreign;
            }
        }
        loop {
            // What is found to be foreign changes them.
            let limits = self.limits();
            let limits = Limits {
                max_size: limits.max_size.saturating_sub(need.bytes),
                max_entries: limits.max_entries.saturating_sub(need.files),
                keep_free: need.free.unwrap_or(limits.keep_free),
                ..limits
            };
            // Moments are told apart by nanoseconds that have not passed.
            let now = self.moment() + Duration::from_micros(1);
            let plan = evict::plan(&entries, now, &limits, free);
            let victims = plan.victims.iter().map(|victim| victim.id);
            let foreign: HashSet<u64> = victims.filter(|id| self.is_foreign_victim(*id)).collect();
            if foreign.is_empty() {
                return plan;
            }
            for entry in &mut entries {
                if foreign.contains(&entry.id) {
                    entry.kind = evict::Kind::Foreign;
                }
            }
        }
    }

    /// Whether a file is foreign by its form, which is read if it has to be.
    fn is_foreign_victim(&self, ino: u64) -> bool {
        let Ok(node) = self.node(ino) else {
            return false;
        };
        node.place()
            .is_some_and(|place| !self.is_cache_file(&node, &place))
    }

    /// What a sweep would evict now: the file's path, and why.
    pub fn plan(&self) -> Vec<(String, Victim)> {
        let mut plan = self.plan_with_right();
        if self.config.read_only {
            plan.retain(|(_, victim)| self.may_go(victim));
        }
        plan
    }

    /// Whether a mount without writes may remove a victim: what it has staged, and nothing on disk.
    fn may_go(&self, victim: &Victim) -> bool {
        let node = self.node(victim.id);
        node.is_ok_and(|node| !self.is_on_disk(&node))
    }

    /// What a sweep with the right to write would evict now.
    pub(super) fn plan_with_right(&self) -> Vec<(String, Victim)> {
        let plan = self.plan_for(Need::default(), self.free(), &[]);
        let named = plan.victims.into_iter().filter_map(|victim| {
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
    /// For a thread of its own: between rounds it waits for the kernel, which may wait for a request. Ends early after
    /// [`Trigger::stop`].
    pub fn sweep(&self) -> usize {
        self.counters.sweep_turn();
        // What is left of a plan that was made by who needed room brings the usage below its limit.
        let mut evicted = self.evict_planned();
        if !self.sweeper.is_stopped() {
            if !self.is_over_budget() {
                self.judge_by_sources();
            }
            self.make_plan(Need::default(), &[]);
            evicted += self.evict_planned();
        }
        if !self.sweeper.is_stopped() {
            self.note_use(USE_LAG);
        }
        self.counters.sweep_turn();
        evicted
    }

    /// Evicts the latest plan's victims, in rounds; returns how many.
    fn evict_planned(&self) -> usize {
        let mut evicted = 0;
        let mut parents = BTreeSet::new();
        let mut in_round = 0;
        while !self.sweeper.is_stopped() {
            let evicting = self.sweeping.lock();
            let some: Vec<_> = std::iter::from_fn(|| self.evictor.next())
                .take(AT_ONCE)
                .collect();
            for (victim, planned_at) in &some {
                if let Some(parent) = self.evict(victim, *planned_at, Hold::Anyhow) {
                    evicted += 1;
                    parents.insert(parent);
                }
            }
            drop(evicting);
            if some.is_empty() {
                break;
            }
            in_round += some.len();
            if in_round >= ROUND {
                in_round = 0;
                self.settle_round(&mut parents);
            }
        }
        self.settle_round(&mut parents);
        evicted
    }

    /// After a round: directories that it has emptied leave too, and the kernel is told of all that has changed.
    fn settle_round(&self, parents: &mut BTreeSet<u64>) {
        for parent in std::mem::take(parents) {
            self.notices.send(Notice::Inode { ino: parent });
            self.remove_emptied(parent);
        }
        self.notices.settle();
    }

    /// Removes a directory that has lost its last file to the evictor, and those above it that are empty then.
    fn remove_emptied(&self, ino: u64) {
        let mut next = self.node(ino).ok();
        while let Some(node) = next.filter(|node| node.ino != super::ROOT) {
            let Some(place) = node.place() else { return };
            let Some(dir) = Dir::of(&node) else { return };
            let (above, own) = (place.parent.folder(), dir.folder());
            // In the order in which a rename between the two takes them.
            let (first, second) = match place.parent.ino < node.ino {
                true => (above, own),
                false => (own, above),
            };
            let was_known = {
                let _first = first.names.lock();
                let _second = second.names.lock();
                if !node.is_at(&place) || !own.children.read().is_empty() {
                    return;
                }
                if let Err(error) = self.remove_at(&place.parent, above, &place.name, &node) {
                    log::debug!("the empty directory {:?} stays: {error}", place.name);
                    return;
                }
                node.is_known()
            };
            if was_known {
                self.notices.send(Notice::Entry {
                    ino: node.ino,
                    parent: place.parent.ino,
                    name: place.name.to_os_string(),
                });
            }
            next = Some(Arc::clone(&place.parent));
        }
    }

    /// Makes a plan, whose victims are the queue's from now on.
    pub(super) fn make_plan(&self, need: Need, spared: &[u64]) {
        let planned_at = self.moment();
        let mut plan = self.plan_for(need, self.free(), spared);
        if self.config.read_only {
            plan.victims.retain(|victim| self.may_go(victim));
        }
        self.evictor.waved.store(0, Ordering::Relaxed);
        self.tell_out_of_reach(&plan);
        let mut queue = self.evictor.queue.lock();
        if queue.planned_at.is_some_and(|at| at > planned_at) && !queue.victims.is_empty() {
            // Somebody who needs room has made a later one meanwhile.
            return;
        }
        queue.victims = plan.victims.into();
        queue.planned_at = Some(planned_at);
    }

    /// Says once what evicting cannot reach, until it can again.
    fn tell_out_of_reach(&self, plan: &Plan) {
        let told = |before: &AtomicBool, now: bool| !before.swap(now, Ordering::Relaxed) && now;
        // Within reach again it is once a store finds room.
        let told_before = self.evictor.budget_told.load(Ordering::Relaxed);
        if told(
            &self.evictor.budget_told,
            plan.budget_out_of_reach || told_before,
        ) {
            log::warn!(
                "{} files that are no cache entries take {} bytes, and nothing can be evicted that would make the rest fit: \
                 raise --max-size or --max-entries, or move them elsewhere",
                self.foreign.files(),
                self.foreign.bytes()
            );
        }
        if told(&self.evictor.pressure_told, plan.pressure_out_of_reach) {
            log::warn!(
                "the backing filesystem has less free than --keep-free, and evicting everything would not change that: \
                 nothing is evicted for it"
            );
        }
    }

    /// Whether the latest plan found that free space, or the budget, is out of reach.
    pub(super) fn out_of_reach(&self) -> (bool, bool) {
        (
            self.evictor.budget_told.load(Ordering::Relaxed),
            self.evictor.pressure_told.load(Ordering::Relaxed),
        )
    }

    /// Removes one victim, unless it was used or changed since the plan was made, or is no cache entry by its form.
    /// Returns the directory's inode number.
    pub(super) fn evict(&self, victim: &Victim, planned_at: SystemTime, hold: Hold) -> Option<u64> {
        let node = self.node(victim.id).ok()?;
        // A mount without writes has staged files too, and nothing else of its own.
        if self.config.read_only && self.is_on_disk(&node) {
            return None;
        }
        // Nothing is removed from a directory that is no longer served: another may use it by now.
        if self.about.stop.has_begun() {
            return None;
        }
        let place = node.place()?;
        let folder = place.parent.folder();
        if !self.is_cache_file(&node, &place) {
            self.keep_foreign(&node);
            return None;
        }
        let standing = &node.standing;
        let was_known;
        {
            let _names = folder.names.lock();
            let staged = victim.reason == Reason::StaleTemp && !self.is_on_disk(&node);
            let used_since = standing.used().max(standing.committed()) > planned_at;
            if !node.is_at(&place) || is_buffered(&node) != staged || used_since || !standing.fits()
            {
                return None;
            }
            if hold == Hold::InMemory {
                self.hold_in_memory(&node, &place);
            }
            if let Err(error) = self.remove_at(&place.parent, folder, &place.name, &node) {
                log::error!("{:?} cannot be evicted: {error}", place.name);
                return None;
            }
            was_known = node.is_known();
        }
        log::debug!("evicted {:?}: {}", place.name, victim.reason);
        self.counters.evicted(victim.reason, victim.size);
        if was_known {
            self.notices.send(Notice::Entry {
                ino: node.ino,
                parent: place.parent.ino,
                name: place.name.to_os_string(),
            });
        }
        Some(place.parent.ino)
    }

    /// A staged file that turns out to be no engine's is committed under the name it has, as any other file.
    fn keep_foreign(&self, node: &Arc<Node>) {
        if node.standing.is_foreign_by_form() {
            self.in_place_changed(node);
        }
    }
}
