//! What each operation means: inodes and names, staging, commit, attributes, the hidden folder.
//!
//! Nothing here knows FUSE: an operation takes plain arguments and returns plain values, so that it is
//! tested without a mount. The order of the locks is that of their ranks: see [`crate::locks`].

mod attr;
mod budget;
mod buffer;
mod children;
mod commit;
mod content;
mod counters;
mod data;
mod dir;
mod error;
mod evict;
mod file;
mod hidden;
mod judge;
mod last_use;
mod met;
mod names;
mod node;
mod notice;
mod persist;
mod quarantine;
mod readdir;
mod refused;
mod report;
mod room;
mod scan;
mod setattr;
mod sources;
mod standing;
mod xattrs;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use dashmap::DashMap;

pub use attr::{Attr, BLOCK, Caller, Changes, Kind, SetTime, Stat};
pub use commit::{RenameMode, Renamed};
pub use content::{Bytes, Tail};
pub use counters::{Counters, Operation};
pub use error::{Error, Result};
pub use notice::{Notice, Notices};
pub use persist::Persisted;
pub use readdir::DirEntry;
pub use report::{About, Supplement};

use crate::clock::Clock;
use crate::config::Config;
use crate::evict::Trigger;
use crate::format::engine::Engines;
use crate::locks::{self, SWEEP};
pub use crate::tier::Patience;
use crate::tier::private::Opened;
use crate::tier::{DiskTier, Faults, MemoryTier};
use budget::{Budget, DiskUse};
use buffer::Staging;
use dir::{Dir, Folder};
use file::Orphans;
use met::Met;
use node::{Body, Node};
use persist::InPlace;
use refused::Refused;
use standing::Counted;

/// The inode number of the mount's root.
pub const ROOT: u64 = 1;

/// The longest name in bytes, as on every usual backing filesystem (NAME_MAX).
pub const NAME_MAX: usize = 255;

/// Folders and symbolic links that there may be whatever the entry limit is.
const MIN_FOLDERS_AND_LINKS: u64 = 10_000;

/// Space and files, as statfs(2) reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What is used and what is free, in blocks of [`BLOCK`] bytes: the budget, or less if the backing filesystem
    /// has no room for all of it.
    pub blocks: u64,
    /// What is left of the budget, or of the backing filesystem if that has less.
    pub free: u64,
    /// Entries and what is free: the entry limit, or less if the backing filesystem has not so many inodes.
    pub files: u64,
    /// What is left of the limit, or of the backing filesystem's inodes if those are fewer.
    pub files_free: u64,
}

/// The filesystem's core.
#[derive(Debug)]
pub struct Vfs {
    config: Config,
    clock: Arc<dyn Clock>,
    disk: DiskTier,
    memory: MemoryTier,
    staging: Staging,
    nodes: DashMap<u64, Arc<Node>>,
    root: Dir,
    next_ino: AtomicU64,
    in_place: InPlace,
    refused: Refused,
    orphans: Orphans,
    /// Folders and symbolic links.
    folders_and_links: Arc<Budget>,
    notices: Notices,
    counters: Counters,
    about: About,
    supplement: OnceLock<Arc<dyn Supplement>>,
    evictor: evict::Evictor,
    sources: sources::Sources,
    engines: Engines,
    /// The time of day and the clock that only goes forward, when it began.
    began: (SystemTime, Duration),
    /// The latest moment that was given to a use.
    ticks: AtomicU64,
    /// Files that are no cache entries; and those among them that were there before.
    foreign: Counted,
    adopted: Counted,
    /// What the directory remembered when it was opened.
    met: OnceLock<Met>,
    /// Held while victims are removed, and while one who needs room chooses them.
    sweeping: locks::Mutex<SWEEP, ()>,
    sweeper: Trigger,
    /// What the process that carries the cache tells of itself.
    told: parking_lot::RwLock<Arc<[u8]>>,
    /// Committed files, and their bytes in whole blocks.
    used: Arc<DiskUse>,
}

impl Vfs {
    /// Takes over the backing directory `root`, on which the caller holds the lock, and reads in
    /// what is there.
    ///
    /// # Errors
    /// Those of the system while the backing directory is read.
    pub fn open(
        root: OwnedFd,
        config: Config,
        clock: Arc<dyn Clock>,
        notices: Notices,
        about: About,
        faults: Option<Arc<dyn Faults>>,
    ) -> Result<Self> {
        Self::serve(root.into(), config, clock, notices, about, faults)
    }

    /// As [`Vfs::open`], for a directory whose private folder is open and checked already.
    ///
    /// # Errors
    /// As [`Vfs::open`].
    pub fn serve(
        root: Opened,
        config: Config,
        clock: Arc<dyn Clock>,
        notices: Notices,
        about: About,
        faults: Option<Arc<dyn Faults>>,
    ) -> Result<Self> {
        let disk = DiskTier::open(root, config.read_only, faults)?;
        let found = disk.root_found()?;
        let root = Dir::new(Node::new(
            ROOT,
            scan::attr_of(&found),
            None,
            Body::Directory(Box::new(Folder::new(disk.root()))),
        ));
        let root = root.ok_or(Error::NotADirectory)?;
        let vfs = Self {
            memory: MemoryTier::new(config.memory),
            staging: Staging::new(config.staging),
            nodes: DashMap::new(),
            next_ino: AtomicU64::new(hidden::FIRST_FREE_INO),
            in_place: InPlace::default(),
            refused: Refused::default(),
            orphans: Orphans::new(),
            folders_and_links: Budget::new(config.max_entries.max(MIN_FOLDERS_AND_LINKS)),
            used: Arc::default(),
            root: root.clone(),
            notices,
            counters: Counters::default(),
            about,
            supplement: OnceLock::new(),
            evictor: evict::Evictor::default(),
            sources: sources::Sources::default(),
            engines: Engines::new(config.pattern.clone()),
            began: (clock.now(), clock.steady()),
            ticks: AtomicU64::new(0),
            foreign: Counted::default(),
            adopted: Counted::default(),
            met: OnceLock::new(),
            sweeping: locks::Mutex::default(),
            sweeper: Trigger::default(),
            told: parking_lot::RwLock::new(Arc::from(&b"{}\n"[..])),
            config,
            clock,
            disk,
        };
        vfs.nodes.insert(ROOT, Arc::clone(&root));
        // Nobody else has it yet.
        let _ = vfs.met.set(vfs.recall());
        vfs.scan(&root, found.id.device)?;
        vfs.remember();
        Ok(vfs)
    }

    /// The options it was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn now(&self) -> SystemTime {
        self.clock.now()
    }

    fn node(&self, ino: u64) -> Result<Arc<Node>> {
        self.nodes
            .get(&ino)
            .map(|node| Arc::clone(&node))
            .ok_or(Error::Stale)
    }

    fn directory(&self, ino: u64) -> Result<Dir> {
        Dir::of(&self.node(ino)?).ok_or(Error::NotADirectory)
    }

    fn fresh_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    fn check_writable(&self) -> Result<()> {
        if self.config.read_only {
            return Err(Error::ReadOnly);
        }
        Ok(())
    }

    /// Takes back `count` look-ups of an inode (FORGET): with the last one, content without a name ends.
    pub fn forget(&self, ino: u64, count: u64) {
        let Ok(node) = self.node(ino) else { return };
        if node.forget(count) && self.is_unreachable(&node) {
            self.nodes.remove(&ino);
        }
    }

    fn is_unreachable(&self, node: &Node) -> bool {
        node.ino >= hidden::FIRST_FREE_INO && node.place().is_none()
    }

    /// The attributes of an inode.
    ///
    /// # Errors
    /// ESTALE if the kernel should not know the inode.
    pub fn getattr(&self, ino: u64) -> Result<Stat> {
        match self.hidden_stat(ino) {
            Some(stat) => Ok(stat),
            None => Ok(self.node(ino)?.stat()),
        }
    }

    /// The budget and what is used of it.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub fn space(&self) -> Result<Space> {
        let backing = self.disk.space()?;
        let used = self.used.bytes.load(Ordering::Relaxed) / BLOCK;
        let left = (self.max_size() / BLOCK).saturating_sub(used);
        let available = backing.f_bavail.saturating_mul(backing.f_frsize) / BLOCK;
        let free = left.min(available);
        let used_files = self.used.entries.load(Ordering::Relaxed);
        let left = self.max_entries().saturating_sub(used_files);
        let files_free = match backing.f_files {
            // It makes inodes as it needs them (btrfs), and does not say how many are left.
            0 => left,
            _ => left.min(backing.f_favail),
        };
        Ok(Space {
            blocks: used.saturating_add(free),
            free,
            files: used_files.saturating_add(files_free),
            files_free,
        })
    }
}
