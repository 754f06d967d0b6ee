//! The hidden folder `.kidafs` in the mount's root: generated files that show what the daemon does.
//!
//! A file is generated when it is looked up, under an inode number of its own, and stays as it was for
//! whoever opened it. So a reader never sees two states mixed, its size is true, and no cache can be stale.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use super::attr::{Attr, Kind, Stat};
use super::error::{Error, Result};
use super::node::{Body, Node};
use super::readdir::DirEntry;
use super::{ROOT, Vfs};

/// The folder's own inode number.
const HIDDEN: u64 = 2;
/// The first number for everything else.
pub(super) const FIRST_FREE_INO: u64 = 3;

const FILES: [&str; 4] = ["config.json", "entries.jsonl", "pid", "stats.json"];

impl Vfs {
    pub(super) fn is_in_hidden(&self, ino: u64) -> bool {
        ino == HIDDEN
    }

    /// Whether an inode is generated, so that its name must be looked up anew each time it is opened.
    pub fn is_generated(&self, ino: u64) -> bool {
        ino == HIDDEN
            || self
                .node(ino)
                .is_ok_and(|node| matches!(node.body, Body::Snapshot(_)))
    }

    pub(super) fn hidden_stat(&self, ino: u64) -> Option<Stat> {
        (ino == HIDDEN).then(|| self.hidden_attr(Kind::Directory, ino, 0))
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

    pub(super) fn hidden_lookup(&self, parent: u64, name: &OsStr) -> Result<Stat> {
        if parent == ROOT {
            return Ok(self.hidden_attr(Kind::Directory, HIDDEN, 0));
        }
        let content = self.generate(name).ok_or(Error::NO_ENTRY)?;
        let ino = self.fresh_ino();
        let stat = self.hidden_attr(Kind::File, ino, content.len() as u64);
        let node = Arc::new(Node::new(
            ino,
            stat.attr,
            None,
            Body::Snapshot(content.into()),
        ));
        node.count_lookup();
        self.nodes.insert(ino, node);
        Ok(stat)
    }

    fn generate(&self, name: &OsStr) -> Option<Vec<u8>> {
        match name.to_str()? {
            "pid" => Some(format!("{}\n", std::process::id()).into_bytes()),
            "stats.json" => Some(self.stats_json()),
            "config.json" => Some(self.config_json()),
            "entries.jsonl" => Some(self.entries_jsonl()),
            _ => None,
        }
    }

    /// How long the kernel may take a look-up in the hidden folder for granted.
    pub const GENERATED_TTL: Duration = Duration::ZERO;

    pub(super) fn hidden_listing(&self, ino: u64) -> Option<Vec<&'static str>> {
        (ino == HIDDEN).then(|| FILES.to_vec())
    }

    /// Lists the folder. The files get no inode here: each look-up makes one.
    pub(super) fn list_hidden(
        &self,
        ino: u64,
        position: u64,
        files: &[&'static str],
        mut accept: impl FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()> {
        let own = self.hidden_attr(Kind::Directory, ino, 0);
        let dots = [(".", own, true), ("..", self.root_stat(), true)];
        let files = files
            .iter()
            .map(|name| (*name, self.hidden_attr(Kind::File, HIDDEN, 0), false));
        for (index, (name, stat, is_dot)) in dots.into_iter().chain(files).enumerate() {
            let own = index as u64 + 1;
            if own > position
                && !accept(DirEntry {
                    name: OsStr::new(name),
                    stat,
                    position: own,
                    is_dot,
                })
            {
                break;
            }
        }
        Ok(())
    }
}
