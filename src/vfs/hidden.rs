//! The hidden folder `.kidafs` in the mount's root: generated files that show what the daemon does.
//!
//! A file is generated when it is looked up, under an inode number of its own, and stays as it was for
//! whoever opened it. So a reader never sees two states mixed, its size is true, and no cache can be stale.
//!
//! The folder `by-inode` in it opens each file of the mount by its number, as a further name of the same inode. A
//! look-up there is not a use of the entry, so that a tool can check all content without making it look hot.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::attr::{Attr, Kind, Stat};
use super::error::{Error, Result};
use super::node::{Body, Node};
use super::notice::Notice;
use super::readdir::DirEntry;
use super::{ROOT, Vfs};
use crate::layout::{
    BY_INODE, CONFIG_JSON, ENTRIES_JSONL, METRICS, PID, PLAN_JSONL, REMOTE_JSON, STATS_JSON, SWEEP,
};
use crate::tier::Patience;

/// The folder's own inode number.
const HIDDEN: u64 = 2;
/// That of [`BY_INODE`] in it.
const NUMBERS: u64 = 3;
/// That of [`SWEEP`].
const REQUEST: u64 = 4;
/// The first number for everything else.
pub(super) const FIRST_FREE_INO: u64 = 5;

/// The longest text that may be left in [`REMOTE_JSON`], in bytes.
const MOST_TOLD: usize = 64 << 10;

const FILES: [&str; 7] = [
    CONFIG_JSON,
    ENTRIES_JSONL,
    METRICS,
    PID,
    PLAN_JSONL,
    REMOTE_JSON,
    STATS_JSON,
];

impl Vfs {
    pub(super) fn is_in_hidden(&self, ino: u64) -> bool {
        matches!(ino, HIDDEN | NUMBERS)
    }

    /// Whether an inode is the hidden folder's own.
    pub fn is_hidden_folder(&self, ino: u64) -> bool {
        self.is_in_hidden(ino)
    }

    pub(super) fn hidden_stat(&self, ino: u64) -> Option<Stat> {
        match ino {
            HIDDEN => Some(self.hidden_attr(Kind::Directory, HIDDEN, 0)),
            NUMBERS => Some(self.numbers_stat()),
            REQUEST => Some(self.request_stat()),
            _ => None,
        }
    }

    /// Its owner, whom the kernel lets set its times, is the mount's.
    fn request_stat(&self) -> Stat {
        let mut stat = self.hidden_attr(Kind::File, REQUEST, 0);
        stat.attr.mode = 0o600;
        stat.attr.uid = rustix::process::geteuid().as_raw();
        stat
    }

    /// Whether an inode is the one by which a sweep is asked for.
    pub fn is_sweep_request(&self, ino: u64) -> bool {
        ino == REQUEST
    }

    /// Has the evictor run soon, if the user `uid`, who the kernel says it is, may ask for it.
    ///
    /// # Errors
    /// EPERM for anybody but root and the mount's owner.
    pub fn ask_to_sweep(&self, uid: u32) -> Result<Stat> {
        if uid != 0 && uid != rustix::process::geteuid().as_raw() {
            return Err(Error::Hidden);
        }
        self.sweeper().ask();
        Ok(self.request_stat())
    }

    /// It leads past the directories in which the files are, so only whoever owns the root may search it.
    fn numbers_stat(&self) -> Stat {
        let mut stat = self.hidden_attr(Kind::Directory, NUMBERS, 0);
        stat.attr.mode = 0o100;
        stat
    }

    fn hidden_attr(&self, kind: Kind, ino: u64, size: u64) -> Stat {
        let root = self.root_stat().attr;
        let now = self.now();
        // Readable for whoever may read the root, and for its owner.
        let (mode, links) = match kind {
            Kind::Directory => (0o500 | (root.mode & 0o555), 2),
            Kind::File | Kind::Symlink => (0o400 | (root.mode & 0o444), 1),
        };
        Stat {
            ino,
            kind,
            generated: true,
            checked: true,
            links,
            attr: Attr {
                size,
                mode,
                atime: now,
                mtime: now,
                ctime: now,
                ..root
            },
        }
    }

    pub(super) fn hidden_lookup(
        &self,
        parent: u64,
        name: &OsStr,
        patience: Patience,
    ) -> Result<Stat> {
        if parent == ROOT {
            return Ok(self.hidden_attr(Kind::Directory, HIDDEN, 0));
        }
        if parent == NUMBERS {
            return self.numbered(name, patience);
        }
        if name == BY_INODE {
            return Ok(self.numbers_stat());
        }
        if name == SWEEP {
            return Ok(self.request_stat());
        }
        let content = self.generate(name).ok_or(Error::NoEntry)?;
        let ino = self.fresh_ino();
        let mut stat = self.hidden_attr(Kind::File, ino, content.len() as u64);
        if name == REMOTE_JSON {
            // Whoever owns the mount leaves it there.
            stat.attr.mode |= 0o200;
        }
        let node = Arc::new(Node::new(
            ino,
            stat.attr,
            None,
            match name == REMOTE_JSON {
                true => Body::Told(content.into()),
                false => Body::Snapshot(content.into()),
            },
        ));
        node.count_lookup();
        self.nodes.insert(ino, node);
        Ok(stat)
    }

    /// Finds a file by its inode number and counts a look-up of the inode, but no use.
    fn numbered(&self, name: &OsStr, patience: Patience) -> Result<Stat> {
        let number = name.to_str().and_then(|name| name.parse().ok());
        let node = self.node(number.ok_or(Error::NoEntry)?);
        let node = node.map_err(|_| Error::NoEntry)?;
        if node.kind() != Kind::File || !self.verify(&node, patience)? {
            return Err(Error::NoEntry);
        }
        let place = node.place().ok_or(Error::NoEntry)?;
        let folder = place.parent.folder();
        // Counted while the name cannot go: an inode without a name and without look-ups is dropped.
        let _children = folder.children.read();
        if !node.is_at(&place) {
            return Err(Error::NoEntry);
        }
        node.numbered.store(true, Ordering::Release);
        node.count_lookup();
        Ok(node.stat())
    }

    /// Has the kernel drop the further name of a file that has lost its own: with it the kernel would hold on to
    /// the inode, and so the daemon to its content, as if it were open.
    pub(super) fn forget_number(&self, node: &Node) {
        if node.numbered.load(Ordering::Acquire) {
            self.notices.send(Notice::Entry {
                ino: node.ino,
                parent: NUMBERS,
                name: node.ino.to_string().into(),
            });
        }
    }

    fn generate(&self, name: &OsStr) -> Option<Vec<u8>> {
        match name.to_str()? {
            PID => Some(format!("{}\n", std::process::id()).into_bytes()),
            STATS_JSON => Some(self.stats_json()),
            CONFIG_JSON => Some(self.config_json()),
            METRICS => Some(self.metrics()),
            ENTRIES_JSONL => Some(self.entries_jsonl()),
            PLAN_JSONL => Some(self.plan_jsonl()),
            REMOTE_JSON => Some(self.told.read().to_vec()),
            _ => None,
        }
    }

    /// Keeps what the process that carries the cache tells of itself; each time all of it.
    pub(super) fn tell(&self, offset: u64, text: &[u8]) -> Result<()> {
        if offset != 0 || text.len() > MOST_TOLD {
            return Err(Error::TooLarge);
        }
        *self.told.write() = text.into();
        Ok(())
    }

    /// How long the kernel may take a look-up in the hidden folder for granted.
    pub const GENERATED_TTL: Duration = Duration::ZERO;

    /// Lists the folder. With `count` each file gets the inode that its look-up would give it, since a
    /// listing with attributes is one of look-ups too.
    pub(super) fn list_hidden(
        &self,
        ino: u64,
        position: u64,
        count: bool,
        mut accept: impl FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()> {
        if ino == NUMBERS {
            // Its mode lets only root get here, for whom `entries.jsonl` is the list.
            return Ok(());
        }
        let own = self.hidden_attr(Kind::Directory, ino, 0);
        for (at, name, stat) in [(1, ".", own), (2, "..", self.root_stat())] {
            let entry = DirEntry {
                name: OsStr::new(name),
                stat,
                position: at,
                is_dot: true,
            };
            if at > position && !accept(entry) {
                return Ok(());
            }
        }
        for (at, name) in (3..).zip(FILES).skip_while(|(at, _)| *at <= position) {
            let name = OsStr::new(name);
            let stat = match count {
                true => self.hidden_lookup(ino, name, Patience::Any)?,
                false => self.hidden_attr(Kind::File, ino, 0),
            };
            if !accept(DirEntry {
                name,
                stat,
                position: at,
                is_dot: false,
            }) {
                self.forget(stat.ino, 1);
                break;
            }
        }
        Ok(())
    }
}
