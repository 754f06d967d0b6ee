//! Listing directories.

use std::ffi::OsStr;
use std::sync::Arc;

use super::attr::Stat;
use super::error::{Error, Result};
use super::node::Node;
use super::{ROOT, Vfs};

/// One name of a listing.
#[derive(Debug, Clone, Copy)]
pub struct DirEntry<'a> {
    /// The name.
    pub name: &'a OsStr,
    /// What it stands for.
    pub stat: Stat,
    /// Where a listing goes on after this name.
    pub position: u64,
    /// Whether this is `.` or `..`, for which READDIRPLUS counts no look-up (Linux, fs/fuse/readdir.c).
    pub is_dot: bool,
}

impl Vfs {
    /// Lists the names of a directory that come after `position` (0: from the start), until `accept`
    /// says that its reply is full by returning false.
    ///
    /// Positions stay valid while names come and go: what stays is listed once. With `count` each
    /// accepted name but `.` and `..` counts a look-up, as READDIRPLUS does.
    ///
    /// # Errors
    /// ENOTDIR, ESTALE.
    pub fn read_dir(
        &self,
        ino: u64,
        position: u64,
        count: bool,
        mut accept: impl FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()> {
        if self.is_in_hidden(ino) {
            return self.list_hidden(ino, position, count, accept);
        }
        let node = self.directory(ino)?;
        let Some(folder) = node.folder() else {
            return Err(Error::NotADirectory);
        };
        let parent = node
            .place()
            .map_or_else(|| self.root_stat(), |place| place.parent.stat());
        let dots = [(1, ".", node.stat()), (2, "..", parent)];
        for (own, name, stat) in dots {
            if own > position
                && !accept(DirEntry {
                    name: OsStr::new(name),
                    stat,
                    position: own,
                    is_dot: true,
                })
            {
                return Ok(());
            }
        }
        let children = folder.children.read();
        for (own, child) in children.after(position.max(2)) {
            let Some(place) = child.place() else { continue };
            // Counted before the reply can go out, and taken back if there was no room.
            if count {
                child.count_lookup();
            }
            let entry = DirEntry {
                name: &place.name,
                stat: child.stat(),
                position: own,
                is_dot: false,
            };
            if !accept(entry) {
                if count {
                    child.forget(1);
                }
                break;
            }
        }
        Ok(())
    }

    pub(super) fn root_stat(&self) -> Stat {
        self.root.stat()
    }

    /// All inodes below the root, directories before what is in them.
    pub(super) fn walk(&self, visit: &mut dyn FnMut(&Arc<Node>)) {
        let mut todo = vec![Arc::clone(&self.root)];
        while let Some(parent) = todo.pop() {
            let Some(folder) = parent.folder() else {
                continue;
            };
            for node in folder.children.read().nodes() {
                visit(node);
                if node.folder().is_some() {
                    todo.push(Arc::clone(node));
                }
            }
        }
        debug_assert_eq!(self.root.ino, ROOT);
    }
}
