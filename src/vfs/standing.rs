//! What a file is to the evictor: an entry, an engine's temporary file or somebody else's, and when it was committed
//! and used.
//!
//! Whose a file is its name and its form say together. The name is known at once; the form is read when it has to be
//! known: with the content, or before a victim is removed at the latest. A file that is *foreign* is served as it is
//! and takes space; it is never evicted, set aside or signed.
//!
//! Times here are those of a clock that only goes forward. It shows the time of day at which the daemon started, plus
//! what has passed since, so that nothing here changes when the time of day is set.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::Vfs;
use super::attr::Kind;
use super::file::Content;
use super::node::{Node, Place};
use crate::evict::Verdict;
use crate::format::engine::{Engine, HEAD_LEN, NameKind};
use crate::tier::Patience;

/// The evictor's part of an inode.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Last look-up or commit, in nanoseconds since the epoch. No two uses have the same number, so this is their order
    /// as well.
    used: AtomicU64,
    /// Last commit or change of the content, in the same way.
    committed: AtomicU64,
    /// Whether its form was read, and what it was: see [`Read`].
    form: AtomicU8,
    /// What it counts as foreign, plus one; 0: nothing.
    apart: AtomicU64,
    /// Whether it was there, as foreign, when the directory was mounted: then the limits are beside it.
    adopted: AtomicBool,
    /// What its source says, and since when: see [`Opinion`].
    opinion: AtomicU8,
    opinion_since: AtomicU64,
    /// Stands for its source's path; 0: not known.
    source: AtomicU64,
    /// Whose listing has shown it last, and has not been followed by a look-up yet; 0: nobody's.
    listed_by: AtomicU32,
}

/// What is known of a file's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Read {
    /// Nothing yet.
    Not,
    /// It is what its name says.
    Fits,
    /// It is not.
    Foreign,
}

/// What an entry's source says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Opinion {
    Unknown,
    Fresh,
    Superseded,
    Orphaned,
}

impl Opinion {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Fresh => "fresh",
            Self::Superseded => "superseded",
            Self::Orphaned => "orphaned",
        }
    }
}

/// Whose a file is, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// An engine's entry.
    Entry(Engine),
    /// An engine's temporary file.
    Temporary(Engine),
    /// No engine's.
    Foreign,
}

impl Standing {
    pub(super) fn used(&self) -> SystemTime {
        time_of(self.used.load(Ordering::Relaxed))
    }

    pub(super) fn committed(&self) -> SystemTime {
        time_of(self.committed.load(Ordering::Relaxed))
    }

    fn read(&self) -> Read {
        match self.form.load(Ordering::Acquire) {
            1 => Read::Fits,
            2 => Read::Foreign,
            _ => Read::Not,
        }
    }

    pub(super) fn opinion(&self) -> Opinion {
        match self.opinion.load(Ordering::Acquire) {
            1 => Opinion::Fresh,
            2 => Opinion::Superseded,
            3 => Opinion::Orphaned,
            _ => Opinion::Unknown,
        }
    }

    /// The sources have spoken, at the moment `now`.
    pub(super) fn set_opinion(&self, opinion: Opinion, now: SystemTime) {
        if self.opinion() != opinion {
            self.opinion_since.store(nanos(now), Ordering::Relaxed);
            self.opinion.store(opinion as u8, Ordering::Release);
        }
    }

    /// The same as the planner sees it.
    pub(super) fn verdict(&self) -> Verdict {
        let since = time_of(self.opinion_since.load(Ordering::Relaxed));
        match self.opinion() {
            Opinion::Unknown => Verdict::Unknown,
            Opinion::Fresh => Verdict::Fresh,
            Opinion::Superseded => Verdict::Superseded { since },
            Opinion::Orphaned => Verdict::Orphaned { since },
        }
    }

    pub(super) fn set_source(&self, key: u64) {
        self.source.store(key, Ordering::Relaxed);
    }

    /// A number that stands for its source's path; 0: not known.
    pub(super) fn source(&self) -> u64 {
        self.source.load(Ordering::Relaxed)
    }

    /// Whether its form was read, and is what its name says.
    pub(super) fn fits(&self) -> bool {
        self.read() == Read::Fits
    }

    /// Whether its form was read, and is not what its name says.
    pub(super) fn is_foreign_by_form(&self) -> bool {
        self.read() == Read::Foreign
    }

    fn set_read(&self, read: Read) {
        self.form.store(read as u8, Ordering::Release);
    }

    /// As the file was found on disk; both on the clock that goes forward.
    pub(super) fn found(&self, used: SystemTime, committed: SystemTime) {
        self.used.store(nanos(used), Ordering::Relaxed);
        self.committed.store(nanos(committed), Ordering::Relaxed);
    }

    /// The file was there before the mount: if it is foreign, the limits are for what comes beside it. To be said before
    /// it is counted.
    pub(super) fn was_there(&self) {
        self.adopted.store(true, Ordering::Release);
    }

    /// A listing made by thread `task` has shown the file.
    pub(super) fn listed(&self, task: u32) {
        self.listed_by.store(task, Ordering::Relaxed);
    }

    /// Whether this directory was listed since this was asked last.
    pub(super) fn take_listing(&self) -> bool {
        self.listed_by.swap(0, Ordering::Relaxed) != 0
    }

    /// Whether a look-up by `task` only follows its own listing. Asked once for each listing.
    pub(super) fn was_listed_by(&self, task: u32) -> bool {
        task != 0
            && self
                .listed_by
                .compare_exchange(task, 0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

impl Vfs {
    /// The time, on the clock that only goes forward.
    pub(super) fn steady(&self) -> SystemTime {
        let since = self.clock.steady().saturating_sub(self.began.1);
        self.began.0 + since
    }

    /// The same, and later than at any call before.
    fn tick(&self) -> u64 {
        let now = nanos(self.steady());
        let before = self.ticks.fetch_max(now, Ordering::Relaxed);
        if now > before {
            return now;
        }
        self.ticks.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A moment that is later than every use so far, and earlier than every one to come.
    pub(super) fn moment(&self) -> SystemTime {
        time_of(self.tick())
    }

    /// The time of day at a moment of the clock that goes forward.
    pub(super) fn time_of_day(&self, moment: SystemTime) -> SystemTime {
        let (now, steady) = (self.now(), self.steady());
        let between = |a: SystemTime, b: SystemTime| a.duration_since(b).unwrap_or_default();
        if between(now, steady).max(between(steady, now)) < Duration::from_secs(1) {
            // The time of day was not set since the daemon began: it is the same.
            return moment;
        }
        let ago = between(steady, moment);
        now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// The moment at which it was this time of day; a time ahead of the clock is now.
    pub(super) fn moment_of(&self, time: SystemTime) -> SystemTime {
        let ago = self.now().duration_since(time).unwrap_or_default();
        self.steady()
            .checked_sub(ago)
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// The file is in use.
    pub(super) fn mark_used(&self, node: &Node) {
        node.standing.used.store(self.tick(), Ordering::Relaxed);
    }

    /// The file has new content, or a new name: whose it is may have changed with it.
    pub(super) fn mark_committed(&self, node: &Node) {
        let now = self.tick();
        node.standing.used.store(now, Ordering::Relaxed);
        node.standing.committed.store(now, Ordering::Relaxed);
        node.standing.set_read(Read::Not);
        node.standing
            .opinion
            .store(Opinion::Unknown as u8, Ordering::Release);
    }

    /// As far as that takes no reading: whose a file is that has a new name or new content.
    pub(super) fn appraise(&self, node: &Node) {
        match (node.place(), self.memory.peek(node.ino)) {
            (Some(place), Some(content)) => {
                self.learn_form(node, &place.name, &content);
            }
            _ => self.count_apart(node),
        }
    }

    /// Whose a file of this name is, as far as it is known without reading it.
    pub(super) fn whose(&self, node: &Node, name: &OsStr) -> Whose {
        match (self.engines.by_name(Path::new(name)), node.standing.read()) {
            (NameKind::Foreign, _) | (_, Read::Foreign) => Whose::Foreign,
            (NameKind::Entry { engine, .. }, _) => Whose::Entry(engine),
            (NameKind::Temporary(temporary), _) => Whose::Temporary(temporary.engine),
        }
    }

    /// Whether a file is known to be foreign.
    pub(super) fn is_foreign(&self, node: &Node) -> bool {
        node.place()
            .is_some_and(|place| self.whose(node, &place.name) == Whose::Foreign)
    }

    /// Takes note of a file's form, by its first bytes. False: it is foreign.
    pub(super) fn learn_form(&self, node: &Node, name: &OsStr, content: &[u8]) -> bool {
        let head = &content[..content.len().min(HEAD_LEN)];
        let foreign = self.engines.recognise(Path::new(name), head).is_foreign();
        let read = if foreign { Read::Foreign } else { Read::Fits };
        node.standing.set_read(read);
        self.count_apart(node);
        !foreign
    }

    /// Whether a file is an engine's by its form too, which is read if it has to be. What cannot be read is taken for
    /// foreign, until it can.
    pub(super) fn is_cache_file(&self, node: &Node, place: &Place) -> bool {
        match (self.whose(node, &place.name), node.standing.read()) {
            (Whose::Foreign, _) => return false,
            (_, Read::Fits) => return true,
            (_, Read::Not | Read::Foreign) => {}
        }
        let version = node.version.load(Ordering::Acquire);
        let head = match self.head_of(node, place) {
            Ok(head) => head,
            Err(error) => {
                log::debug!("the form of {:?} cannot be read: {error}", place.name);
                return false;
            }
        };
        // What was read may be of a file that has gone meanwhile: then somebody else finds out.
        node.is_at(place)
            && node.version.load(Ordering::Acquire) == version
            && self.learn_form(node, &place.name, &head)
    }

    fn head_of(&self, node: &Node, place: &Place) -> super::Result<Vec<u8>> {
        if let Some(content) = node.content()
            && let Content::Buffered(buffer) = &*content.lock()
        {
            let bytes = buffer.bytes();
            return Ok(bytes[..bytes.len().min(HEAD_LEN)].to_vec());
        }
        if let Some(bytes) = self.memory.peek(node.ino) {
            return Ok(bytes[..bytes.len().min(HEAD_LEN)].to_vec());
        }
        let folder = place.parent.folder();
        let file = self.disk.open_file(&folder.disk, &place.name)?;
        Ok(self.disk.read(&file, 0, HEAD_LEN, Patience::Any)?)
    }

    /// Brings the counts of foreign files up to date with what is known of one.
    pub(super) fn count_apart(&self, node: &Node) {
        let charged = node.charged().map_or(0, |bytes| bytes + 1);
        let own = if node.kind() == Kind::File && charged > 0 && self.is_foreign(node) {
            charged
        } else {
            0
        };
        let standing = &node.standing;
        let before = standing.apart.swap(own, Ordering::AcqRel);
        let adopted = standing.adopted.load(Ordering::Acquire);
        for (counts, counted) in [(&self.foreign, true), (&self.adopted, adopted)] {
            if counted {
                counts.replace(before, own);
            }
        }
    }

    /// Bytes of files that the budget allows: those of foreign files that were there before the mount are not its.
    pub(super) fn max_size(&self) -> u64 {
        self.config.max_size.saturating_add(self.adopted.bytes())
    }

    /// Files that the budget allows.
    pub(super) fn max_entries(&self) -> u64 {
        self.config.max_entries.saturating_add(self.adopted.files())
    }
}

/// Files, and what they count against the budget.
#[derive(Debug, Default)]
pub(super) struct Counted {
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Counted {
    pub(super) fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A file counts `after` instead of `before`; each is its bytes plus one, or 0 for nothing.
    fn replace(&self, before: u64, after: u64) {
        if after > 0 {
            self.files.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(after - 1, Ordering::Relaxed);
        }
        if before > 0 {
            self.files.fetch_sub(1, Ordering::Relaxed);
            self.bytes.fetch_sub(before - 1, Ordering::Relaxed);
        }
    }
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
}

fn time_of(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}
