//! Inodes.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::attr::{Attr, Kind, Stat};
use super::budget::Charge;
use super::dir::{Dir, Folder};
use super::error::Error;
use super::file::{ContentLock, File};
use super::standing::Standing;
use crate::locks::{self, META};

/// A name, shared by the directory that lists it and the inode that has it.
pub(super) type Name = Arc<OsStr>;

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
    File(File),
    Symlink(Box<OsStr>),
    /// A generated file of the hidden folder: as it was when it was looked up.
    Snapshot(Arc<[u8]>),
    /// The same of what another process tells, and may tell anew.
    Told(Arc<[u8]>),
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
            Body::File(_) | Body::Snapshot(_) | Body::Told(_) => Kind::File,
            Body::Symlink(_) => Kind::Symlink,
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        matches!(self.body, Body::Directory(_))
    }

    pub(super) fn content(&self) -> Option<&ContentLock> {
        self.file().map(|file| &file.content)
    }

    pub(super) fn file(&self) -> Option<&File> {
        match &self.body {
            Body::File(file) => Some(file),
            _ => None,
        }
    }

    /// What its file on disk counts against the limits; `None`: there is none.
    pub(super) fn charged(&self) -> Option<u64> {
        self.file().and_then(|file| file.on_disk.charged())
    }

    pub(super) fn stat(&self) -> Stat {
        let meta = self.meta.lock();
        let named = meta.place.is_some()
            || self.ino == super::ROOT
            || matches!(self.body, Body::Snapshot(_) | Body::Told(_));
        Stat {
            ino: self.ino,
            kind: self.kind(),
            generated: matches!(self.body, Body::Snapshot(_) | Body::Told(_)),
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
