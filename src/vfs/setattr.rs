//! Changing attributes.

use std::cell::Cell;
use std::ffi::OsStr;
use std::time::SystemTime;

use super::Vfs;
use super::attr::{Attr, Changes, Kind, SetTime, Stat};
use super::error::{Error, Result};
use super::node::{Body, Node};
use crate::tier::{Directory, Known, Thing};

const SET_ID: u32 = 0o6000;

/// What an inode's name in the backing directory stands for, as far as the tree knows.
pub(super) fn known(node: &Node) -> Known {
    Known {
        kind: match node.kind() {
            Kind::File => Thing::File,
            Kind::Directory => Thing::Directory,
            Kind::Symlink => Thing::Symlink,
        },
        uid: node.meta.lock().attr.uid,
    }
}

impl Vfs {
    /// Changes attributes: in memory for a staged file, in the backing directory as well for all else.
    ///
    /// # Errors
    /// EROFS, ESTALE, EISDIR (the size of a directory), EPERM in the hidden folder; as [`Vfs::write`] for the size;
    /// those of the backing filesystem, EPERM for an owner that the daemon's user may not set.
    pub fn setattr(&self, ino: u64, changes: &Changes) -> Result<Stat> {
        if self.is_in_hidden(ino) {
            return Err(Error::Hidden);
        }
        let node = self.node(ino)?;
        if !self.is_temporary(&node) {
            self.check_writable()?;
        }
        if matches!(node.body, Body::Snapshot(_)) {
            return Err(Error::Hidden);
        }
        if let Some(size) = changes.size {
            self.truncate(ino, size)?;
        }
        if changes.mode.is_some() || changes.uid.is_some() || changes.gid.is_some() {
            self.set_owner_and_mode(&node, changes)?;
        }
        self.set_times(&node, changes)?;
        Ok(node.stat())
    }

    /// Runs `apply` on the inode's name in the backing directory, if it has one, and on what that stands for.
    pub(super) fn on_disk(
        &self,
        node: &Node,
        apply: impl Fn(&Directory, &OsStr, Known) -> rustix::io::Result<()>,
    ) -> Result<()> {
        if node.ino == super::ROOT {
            return Ok(apply(&self.disk.root(), OsStr::new("."), known(node))?);
        }
        loop {
            let Some(place) = node.place() else {
                return Ok(());
            };
            let folder = place.parent.folder();
            let _names = folder.names.lock();
            if !node.is_at(&place) {
                continue;
            }
            if self.is_on_disk(node) {
                apply(&folder.disk, &place.name, known(node))?;
            }
            return Ok(());
        }
    }

    fn set_owner_and_mode(&self, node: &Node, changes: &Changes) -> Result<()> {
        let before = node.meta.lock().attr;
        let mut mode = changes.mode.map_or(before.mode, |mode| mode & 0o7777);
        let owned = changes.uid.is_some() || changes.gid.is_some();
        if owned && changes.mode.is_none() && node.kind() == Kind::File {
            // As chown(2) does for whoever lacks CAP_FSETID; here for everybody.
            mode &= !SET_ID;
        }
        if owned && !self.is_on_disk(node) {
            // What cannot be stored later is refused now.
            self.check_owner(&Attr {
                uid: changes.uid.unwrap_or(before.uid),
                gid: changes.gid.unwrap_or(before.gid),
                ..before
            })?;
        }
        // Under an access control list it may be less.
        let served = Cell::new(mode);
        self.on_disk(node, |dir, name, mut known| {
            if owned {
                self.disk
                    .set_owner(dir, name, known, changes.uid, changes.gid)?;
                known.uid = changes.uid.unwrap_or(known.uid);
            }
            if known.kind != Thing::Symlink {
                served.set(self.disk.set_mode(dir, name, known, mode)?);
            }
            Ok(())
        })?;
        let now = self.now();
        let mut meta = node.meta.lock();
        meta.attr.mode = served.get();
        meta.attr.uid = changes.uid.unwrap_or(before.uid);
        meta.attr.gid = changes.gid.unwrap_or(before.gid);
        meta.attr.ctime = now;
        Ok(())
    }

    fn set_times(&self, node: &Node, changes: &Changes) -> Result<()> {
        let now = self.now();
        let resolve = |time: Option<SetTime>| -> Option<SystemTime> {
            time.map(|time| match time {
                SetTime::Now => now,
                SetTime::To(time) => time,
            })
        };
        let (atime, mtime) = (resolve(changes.atime), resolve(changes.mtime));
        if atime.is_none() && mtime.is_none() {
            return Ok(());
        }
        self.on_disk(node, |dir, name, known| {
            self.disk.set_times(dir, name, known, atime, mtime)
        })?;
        let mut meta = node.meta.lock();
        meta.attr.atime = atime.unwrap_or(meta.attr.atime);
        meta.attr.mtime = mtime.unwrap_or(meta.attr.mtime);
        meta.attr.ctime = now;
        Ok(())
    }
}
