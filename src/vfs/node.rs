//! Inodes.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::attr::{Attr, Kind, Stat};
use super::budget::{Budget, Charge};
use super::buffer::Buffer;
use super::dir::{Dir, Folder};
use super::error::Error;
use super::standing::Standing;
use crate::locks::{self, CONTENT, META};
use crate::tier::DiskFile;

/// A name, shared by the directory that lists it and the inode that has it.
pub(super) type Name = Arc<OsStr>;

/// A file's content; held while that is read or written on disk.
pub(super) type ContentLock = locks::Mutex<CONTENT, Content>;

/// Where an inode is found: its directory and its name there.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) parent: Dir,
    pub(super) name: Name,
}

/// What is guarded by one short lock: never held while the disk is used.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) attr: Attr,
    /// `None` for the root, and once the name is gone.
    pub(super) place: Option<Place>,
    /// Why a write to it failed before it was ever committed: it is not whole, and must not be renamed.
    pub(super) broken: Option<Error>,
}

/// An inode. Its number is never used again, so the generation can stay 0.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) ino: u64,
    pub(super) meta: locks::Mutex<META, Meta>,
    pub(super) body: Body,
    /// How often the kernel was given this inode and has not forgotten it; counted before each reply.
    lookups: AtomicU64,
    /// The evictor's part.
    pub(super) standing: Standing,
    /// Goes up whenever the content changes in place: what was read before is then out of date.
    pub(super) version: AtomicU64,
    /// What it counts against the budget, plus one; 0: it is not on disk.
    pub(super) charged: AtomicU64,
    /// Whether it was read before it was committed, so that the kernel may have all of its pages.
    pub(super) was_read: AtomicBool,
    /// Whether its content on disk was once found to be what was committed.
    pub(super) verified: AtomicBool,
    /// Whether the kernel may know it by its number in the hidden folder.
    pub(super) numbered: AtomicBool,
    /// Its part of the budget of folders and links.
    _counted: Option<Charge>,
}

#[derive(Debug)]
pub(super) enum Body {
    Directory(Box<Folder>),
    File(ContentLock),
    Symlink(Box<OsStr>),
    /// A generated file of the hidden folder: as it was when it was looked up.
    Snapshot(Arc<[u8]>),
}

/// Where a file's content is.
#[derive(Debug)]
pub(super) enum Content {
    /// Under its name in the backing directory, and perhaps in the memory tier.
    Committed,
    /// As [`Content::Committed`], but the name is about to go, or gone: kept readable for who has it open.
    Held(Held),
    /// Here, and changed since (or never) committed.
    Buffered(Box<Buffer>),
}

/// Content that has no name any more.
#[derive(Debug, Clone)]
pub(super) enum Held {
    Bytes(Arc<(Arc<[u8]>, Charge)>),
    File(Arc<(DiskFile, Charge)>),
}

/// The budgets of content that has no name any more and is open.
#[derive(Debug)]
pub(super) struct Orphans {
    pub(super) bytes: Arc<Budget>,
    pub(super) descriptors: Arc<Budget>,
}

/// Bytes of it in memory.
const ORPHAN_BYTES: u64 = 64 << 20;

impl Orphans {
    /// Half of the process's descriptors may be held; the others are for what is going on.
    pub(super) fn new() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Self {
            bytes: Budget::new(ORPHAN_BYTES),
            descriptors: Budget::new(limit.current.unwrap_or(1 << 20) / 2),
        }
    }

    /// Content in memory, if there is room.
    pub(super) fn bytes(&self, bytes: Arc<[u8]>) -> Option<Held> {
        let charge = self.bytes.charge(bytes.len() as u64)?;
        Some(Held::Bytes(Arc::new((bytes, charge))))
    }

    /// The right to hold a file open.
    pub(super) fn descriptor(&self) -> Option<Charge> {
        self.descriptors.charge(1)
    }
}

impl Node {
    pub(super) fn new(ino: u64, attr: Attr, place: Option<Place>, body: Body) -> Self {
        Self {
            ino,
            standing: Standing::default(),
            meta: locks::Mutex::new(Meta {
                attr,
                place,
                broken: None,
            }),
            body,
            lookups: AtomicU64::new(0),
            version: AtomicU64::new(0),
            charged: AtomicU64::new(0),
            was_read: AtomicBool::new(false),
            verified: AtomicBool::new(false),
            numbered: AtomicBool::new(false),
            _counted: None,
        }
    }

    /// The same, counted as one of the folders and links.
    pub(super) fn counted(self, charge: Option<Charge>) -> Self {
        Self {
            _counted: charge,
            ..self
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self.body {
            Body::Directory(_) => Kind::Directory,
            Body::File(_) | Body::Snapshot(_) => Kind::File,
            Body::Symlink(_) => Kind::Symlink,
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        matches!(self.body, Body::Directory(_))
    }

    pub(super) fn content(&self) -> Option<&ContentLock> {
        match &self.body {
            Body::File(content) => Some(content),
            _ => None,
        }
    }

    pub(super) fn stat(&self) -> Stat {
        let meta = self.meta.lock();
        let named = meta.place.is_some()
            || self.ino == super::ROOT
            || matches!(self.body, Body::Snapshot(_));
        Stat {
            ino: self.ino,
            kind: self.kind(),
            generated: matches!(self.body, Body::Snapshot(_)),
            checked: self.is_checked(),
            links: match (named, &self.body) {
                (false, _) => 0,
                (true, Body::Directory(folder)) => folder.links(),
                (true, _) => 1,
            },
            attr: meta.attr,
        }
    }

    /// Whether its content is known to be what was committed, as far as that has to be known.
    pub(super) fn is_checked(&self) -> bool {
        match &self.body {
            Body::File(_) => self.verified.load(Ordering::Acquire),
            _ => true,
        }
    }

    /// Why it must not be renamed, if it must not: a part of its content is missing.
    pub(super) fn broken(&self) -> Option<Error> {
        self.meta.lock().broken
    }

    pub(super) fn place(&self) -> Option<Place> {
        self.meta.lock().place.clone()
    }

    /// Counts a reply that gives this inode to the kernel. Before the reply is sent.
    pub(super) fn count_lookup(&self) {
        self.lookups.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes back `count` of them; true if none is left.
    pub(super) fn forget(&self, count: u64) -> bool {
        let before = self
            .lookups
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |known| {
                Some(known.saturating_sub(count))
            });
        before.is_ok_and(|known| known <= count)
    }

    /// Whether the kernel has this inode, so that a program may have it open.
    pub(super) fn is_known(&self) -> bool {
        self.lookups.load(Ordering::Acquire) > 0
    }

    pub(super) fn changed_in_place(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }
}

/// Extended attributes that a buffered file will be committed with.
pub(super) type Xattrs = Vec<(OsString, Vec<u8>)>;

impl Node {
    /// Whether it is (still) found at `place`.
    pub(super) fn is_at(&self, place: &Place) -> bool {
        self.meta
            .lock()
            .place
            .as_ref()
            .is_some_and(|own| own.parent.ino == place.parent.ino && own.name == place.name)
    }
}
