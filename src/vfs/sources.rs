//! What the sources say of the entries.
//!
//! An entry names the file that it was made of, and holds a fingerprint of it. A sweep looks at those files
//! ([`crate::evict::Looker`]) and gives each entry a verdict. Whatever cannot be seen leaves the verdict unknown.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::Vfs;
use super::attr::Kind;
use super::content::is_buffered;
use super::dir::Dir;
use super::node::{Node, Place};
use super::standing::{Opinion, Whose};
use crate::evict::{Looker, Question, Seen};
use crate::format::engine::Engine;
use crate::format::{File, Fingerprint, Mtime, SourceFile, SourceState};
use crate::tier::Patience;

/// Above so many entries only as many are looked after: what is known of each takes a few hundred bytes.
const MOST: usize = 200_000;

/// What is known of the entries' sources.
#[derive(Debug, Default)]
pub(super) struct Sources(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    looker: Option<Looker>,
    entries: HashMap<u64, Known>,
    counts: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What one entry says of itself.
#[derive(Debug)]
struct Known {
    /// The inode's version that was read, and its folder.
    version: u64,
    place: (u64, Arc<std::ffi::OsStr>),
    engine: Engine,
    abi: String,
    source: Option<SourceFile>,
    fingerprint: Option<Fingerprint>,
}

impl Vfs {
    /// Has sources looked at from now on, by a thread of its own with the rights of the directory's owner.
    ///
    /// # Errors
    /// That of the system, if it has no room for a thread.
    pub fn look_at_sources(&self) -> std::io::Result<()> {
        if !self.config.sources || self.config.read_only {
            return Ok(());
        }
        let owner = self.root.meta.lock().attr;
        let avoided = match self.about.mount_point.is_empty() {
            true => PathBuf::from("/proc"),
            false => PathBuf::from(&self.about.mount_point),
        };
        let looker = Looker::start(owner.uid, owner.gid, avoided)?;
        self.sources.0.lock().looker = Some(looker);
        Ok(())
    }

    /// Brings the verdicts up to date. For the sweeper.
    pub(super) fn judge_by_sources(&self) {
        let mut table = self.sources.0.lock();
        if table.looker.is_none() {
            return;
        }
        let mut here: Vec<(Arc<Node>, Place)> = Vec::new();
        self.walk(&mut |node| {
            if here.len() < MOST
                && node.kind() == Kind::File
                && node.charged().is_some()
                && !is_buffered(node)
                && let Some(place) = node.place()
                && matches!(self.whose(node, &place.name), Whose::Entry(_))
            {
                here.push((Arc::clone(node), place));
            }
        });
        let mut before = std::mem::take(&mut table.entries);
        for (node, place) in &here {
            if self.sweeper.is_stopped() {
                return;
            }
            let version = node.version.load(Ordering::Acquire);
            let known = before.remove(&node.ino).filter(|known| {
                known.version == version
                    && known.place == (place.parent.ino, Arc::clone(&place.name))
            });
            if let Some(known) = known.or_else(|| self.identify(node, place, version)) {
                table.entries.insert(node.ino, known);
            }
        }
        drop(before);
        let mut questions: HashMap<&Path, Vec<Fingerprint>> = HashMap::new();
        for known in table.entries.values() {
            if let (Some(SourceFile::At(path)), Some(wanted)) = (&known.source, &known.fingerprint)
            {
                let all = questions.entry(path).or_default();
                if !all.contains(wanted) {
                    all.push(wanted.clone());
                }
            }
        }
        let questions = questions.into_iter().map(|(path, wanted)| Question {
            path: path.to_owned(),
            wanted,
        });
        let questions: Vec<_> = questions.collect();
        let seen = table
            .looker
            .as_mut()
            .and_then(|looker| looker.ask(questions));
        let Some(seen) = seen else { return };
        let seen: HashMap<PathBuf, Seen> = seen.into_iter().collect();
        self.give_verdicts(&mut table, &here, &seen);
    }

    fn identify(&self, node: &Node, place: &Place, version: u64) -> Option<Known> {
        let path = PathBuf::from(self.path(node));
        let content = match self.memory.peek(node.ino) {
            Some(content) => content,
            None => {
                let folder = place.parent.folder();
                let file = self.disk.open_file(&folder.disk, &place.name).ok()?;
                let size = node.meta.lock().attr.size;
                let size = usize::try_from(size.min(self.config.max_entry)).ok()?;
                self.disk.read(&file, 0, size, Patience::Any).ok()?.into()
            }
        };
        let mtime = node.meta.lock().attr.mtime;
        let identity = self.engines.identify(&File {
            path: &path,
            content: &content,
            mtime: seconds(mtime),
        });
        let (engine, abi, source, fingerprint) = match identity {
            Some(known) => (known.engine, known.version, known.source, known.fingerprint),
            // Of a format that is not known: not to be read again.
            None => match self.whose(node, &place.name) {
                Whose::Entry(engine) => (engine, String::new(), None, None),
                _ => return None,
            },
        };
        if let Some(source) = &source {
            node.standing.set_source(self.evictor.key(source.path()));
        }
        Some(Known {
            version,
            place: (place.parent.ino, Arc::clone(&place.name)),
            engine,
            abi,
            source,
            fingerprint,
        })
    }

    /// A source that is in the cache itself: a module of Mako's, of which the interpreter keeps its bytecode.
    fn seen_in_cache(&self, path: &Path) -> Seen {
        let mut node = Arc::clone(&self.root);
        for part in path.components() {
            let Some(dir) = Dir::of(&node) else {
                return Seen::Nothing;
            };
            let child = dir.folder().children.read().get(part.as_os_str()).cloned();
            let Some(child) = child else {
                return Seen::Gone;
            };
            node = child;
        }
        let attr = node.meta.lock().attr;
        Seen::As(SourceState {
            mtime: Mtime {
                seconds: seconds(attr.mtime),
                nanos: attr
                    .mtime
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| since.subsec_nanos()),
            },
            size: attr.size,
            digests: None,
        })
    }

    fn give_verdicts(
        &self,
        table: &mut Table,
        here: &[(Arc<Node>, Place)],
        seen: &HashMap<PathBuf, Seen>,
    ) {
        // Entries of one folder, engine, version and source are one template's.
        type Group<'a> = (u64, Engine, &'a str, &'a Path);
        fn group(known: &Known) -> Option<Group<'_>> {
            let source = known.source.as_ref()?.path();
            Some((known.place.0, known.engine, &known.abi, source))
        }
        let mut fresh: HashSet<u64> = HashSet::new();
        let mut gone: HashSet<u64> = HashSet::new();
        for (ino, known) in &table.entries {
            let looked = match &known.source {
                Some(SourceFile::InCache(path)) => self.seen_in_cache(path),
                Some(SourceFile::At(path)) => seen.get(path).cloned().unwrap_or(Seen::Nothing),
                Some(SourceFile::Relative(_)) | None => Seen::Nothing,
            };
            match (looked, &known.fingerprint) {
                (Seen::As(state), Some(wanted)) if wanted.matches(&state) == Some(true) => {
                    fresh.insert(*ino);
                }
                (Seen::Gone, _) => {
                    gone.insert(*ino);
                }
                _ => {}
            }
        }
        let live = |ino: &&u64| fresh.contains(ino);
        let groups: HashSet<Group<'_>> = table
            .entries
            .iter()
            .filter(|(ino, _)| live(ino))
            .filter_map(|(_, known)| group(known))
            .collect();
        let folders: HashSet<&Path> = groups.iter().filter_map(|group| group.3.parent()).collect();
        let mut counts: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        let now = self.moment();
        for (node, _) in here {
            let Some(known) = table.entries.get(&node.ino) else {
                continue;
            };
            let group = group(known);
            let in_live_folder = || {
                let folder = group.and_then(|group| group.3.parent());
                folder.is_some_and(|folder| folders.contains(folder))
            };
            let is_read = known.fingerprint.is_some();
            let opinion = if fresh.contains(&node.ino) {
                Opinion::Fresh
            } else if gone.contains(&node.ino) {
                match in_live_folder() {
                    true => Opinion::Orphaned,
                    false => Opinion::Unknown,
                }
            } else if is_read && group.is_some_and(|group| groups.contains(&group)) {
                Opinion::Superseded
            } else {
                Opinion::Unknown
            };
            node.standing.set_opinion(opinion, now);
            *counts
                .entry(known.engine.as_str().to_owned())
                .or_default()
                .entry(opinion.name().to_owned())
                .or_default() += 1;
        }
        table.counts = counts;
    }

    /// Entries by engine and verdict, as of the latest look.
    pub(super) fn verdicts(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        // A look may be under way, for as long as it waits.
        self.sources
            .0
            .try_lock()
            .map(|table| table.counts.clone())
            .unwrap_or_default()
    }

    /// The engine of an entry, and the file that it was made of, as far as they are known.
    pub(super) fn origin(&self, node: &Node) -> Option<(Engine, Option<PathBuf>)> {
        let table = self.sources.0.try_lock()?;
        let known = table.entries.get(&node.ino)?;
        let source = known.source.as_ref();
        Some((known.engine, source.map(|source| source.path().to_owned())))
    }

    /// Why a verdict is what it is, in a few words.
    pub(super) fn evidence(&self, node: &Node) -> Option<String> {
        let table = self.sources.0.try_lock()?;
        let known = table.entries.get(&node.ino)?;
        let source = known.source.as_ref()?.path();
        let name = source.file_name()?.to_string_lossy();
        match node.standing.opinion() {
            Opinion::Orphaned => Some(format!("{name} is gone")),
            Opinion::Superseded => {
                let other = table.entries.iter().find(|(ino, other)| {
                    other.place.0 == known.place.0
                        && other.engine == known.engine
                        && other.abi == known.abi
                        && other.source == known.source
                        && self
                            .node(**ino)
                            .is_ok_and(|node| node.standing.opinion() == Opinion::Fresh)
                });
                let now = other?.1.fingerprint.as_ref()?.short();
                Some(format!("{name} is now {now}"))
            }
            Opinion::Fresh | Opinion::Unknown => None,
        }
    }
}

fn seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => {
            let before = before.duration();
            let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            -whole - i64::from(before.subsec_nanos() > 0)
        }
    }
}
