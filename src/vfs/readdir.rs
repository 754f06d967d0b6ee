//! Listing directories.

use std::ffi::OsStr;
use std::sync::Arc;

use super::Vfs;
use super::attr::Stat;
use super::children::{DOT, DOT_DOT};
use super::dir::Dir;
use super::error::Result;
use super::node::Node;

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
    /// Positions stay valid while names come and go: what stays is listed once, nothing twice, and what is made
    /// after the start not at all. With `count` each
    /// accepted name but `.` and `..` counts a look-up, as READDIRPLUS does.
    ///
    /// # Errors
    /// ENOTDIR, ESTALE.
    pub fn read_dir(
        &self,
        ino: u64,
        position: u64,
        count: bool,
        accept: impl FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()> {
        self.read_dir_by(0, ino, position, count, accept)
    }

    /// As [`Vfs::read_dir`], for the thread `task`: see [`Vfs::lookup_by`].
    ///
    /// # Errors
    /// As [`Vfs::read_dir`].
    pub fn read_dir_by(
        &self,
        task: u32,
        ino: u64,
        position: u64,
        count: bool,
        mut accept: impl FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()> {
        if self.is_in_hidden(ino) {
            return self.list_hidden(ino, position, count, accept);
        }
        let node = self.directory(ino)?;
        let folder = node.folder();
        if position == 0 {
            node.standing.listed(task);
        }
        let parent = node
            .place()
            .map_or_else(|| self.root_stat(), |place| place.parent.stat());
        let (listing, after) = folder.children.read().listing(position);
        let dots = [(DOT, ".", node.stat()), (DOT_DOT, "..", parent)];
        for (number, name, stat) in dots {
            if number > after
                && !accept(DirEntry {
                    name: OsStr::new(name),
                    stat,
                    position: listing.position(number),
                    is_dot: true,
                })
            {
                return Ok(());
            }
        }
        let children = folder.children.read();
        for (number, name, child) in children.after(listing, after) {
            // Counted before the reply can go out, and taken back if there was no room.
            if count {
                child.count_lookup();
            }
            let entry = DirEntry {
                name,
                stat: child.stat(),
                position: listing.position(number),
                is_dot: false,
            };
            if !accept(entry) {
                if count {
                    child.forget(1);
                }
                break;
            }
            child.standing.listed(task);
        }
        Ok(())
    }

    pub(super) fn root_stat(&self) -> Stat {
        self.root.stat()
    }

    /// All inodes below the root, directories before what is in them. No lock is held while one is visited.
    pub(super) fn walk(&self, visit: &mut dyn FnMut(&Arc<Node>)) {
        self.below(&self.root).for_each(|node| visit(&node));
    }

    /// All inodes below a directory, directories before what is in them: of each directory what is in it when it
    /// is come to.
    pub(super) fn below(&self, directory: &Dir) -> impl Iterator<Item = Arc<Node>> {
        let mut folders = vec![directory.clone()];
        let mut found = Vec::new().into_iter();
        std::iter::from_fn(move || {
            loop {
                if let Some(node) = found.next() {
                    return Some(node);
                }
                let children = folders.pop()?.nodes();
                folders.extend(children.iter().filter_map(Dir::of));
                found = children.into_iter();
            }
        })
    }
}
