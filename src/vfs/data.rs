//! Writing, truncating and flushing content.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Vfs;
use super::buffer::Buffer;
use super::content::{Committed, is_buffered};
use super::dir::Dir;
use super::error::{Error, Result};
use super::file::{Content, Held};
use super::node::{Body, Node};
use super::notice::Notice;
use crate::tier::Patience;

/// A change of a file's content.
#[derive(Debug, Clone, Copy)]
enum Change<'a> {
    Write { offset: u64, data: &'a [u8] },
    Resize(u64),
}

impl Change<'_> {
    /// The size of a file of `size` bytes afterwards; beyond all limits where it does not fit 64 bits.
    fn end(self, size: u64) -> u64 {
        match self {
            Self::Write { offset, data } => {
                let end = offset.checked_add(data.len() as u64);
                end.map_or(u64::MAX, |end| end.max(size))
            }
            Self::Resize(len) => len,
        }
    }

    fn apply(self, buffer: &mut Buffer) -> Result<()> {
        match self {
            Self::Write { offset, data } => buffer.write(offset, data),
            Self::Resize(len) => buffer.resize(len),
        }
    }
}

/// The set-user-id and set-group-id bits.
const SET_ID: u32 = 0o6000;

impl Vfs {
    /// Writes `data` at `offset`. The content is uncommitted from then on. `drop_set_id`: the kernel asks
    /// for the set-id bits to go, as they do when anybody but root writes.
    ///
    /// A limit that is met by a file under an engine's temporary name shows at the rename, which engines forgive: the
    /// write succeeds, and what was written until then is dropped.
    ///
    /// # Errors
    /// EFBIG beyond `--max-entry`, ENOSPC beyond `--staging`, EROFS, EISDIR, ESTALE, EPERM in the hidden folder and
    /// for a file whose owner the daemon may not give to a file.
    pub fn write(&self, ino: u64, offset: u64, data: &[u8], drop_set_id: bool) -> Result<()> {
        self.change(ino, Change::Write { offset, data }, drop_set_id)
    }

    /// Cuts a file off at `size`, or fills it up with zeros.
    pub(super) fn truncate(&self, ino: u64, size: u64) -> Result<()> {
        self.change(ino, Change::Resize(size), true)
    }

    fn change(&self, ino: u64, change: Change<'_>, drop_set_id: bool) -> Result<()> {
        let node = self.node(ino)?;
        if matches!(node.body, Body::Told(_)) {
            return match change {
                Change::Write { offset, data } => self.tell(offset, data),
                Change::Resize(_) => Ok(()),
            };
        }
        self.check_changeable(&node)?;
        let changed = match self.try_change(&node, change, drop_set_id) {
            // What waits to be written anyway (in place, or committed with `async`) is written now.
            Err(Error::StagingFull) if self.persist_all().persisted > 0 => {
                self.try_change(&node, change, drop_set_id)
            }
            result => result,
        };
        match changed {
            Err(error @ (Error::TooLarge | Error::StagingFull)) => {
                self.break_off(&node, change, error)
            }
            result => result,
        }
    }

    /// Whether content may change: nothing but staged files does in a mount without writes.
    fn check_changeable(&self, node: &Node) -> Result<()> {
        if self.config.read_only && !self.is_temporary(node) {
            return Err(Error::ReadOnly);
        }
        match node.place() {
            Some(place) => self.refused.check(place.parent.ino, &place.name),
            None => Ok(()),
        }
    }

    /// A change has failed that a file which was never committed needs to be whole. From now on it cannot be renamed,
    /// until it is cut off to nothing and written anew.
    fn break_off(&self, node: &Node, change: Change<'_>, error: Error) -> Result<()> {
        let Some(content) = node.content() else {
            return Err(error);
        };
        let mut content = content.lock();
        let Content::Buffered(buffer) = &mut *content else {
            return Err(error);
        };
        if !buffer.staged || node.place().is_none() {
            return Err(error);
        }
        node.meta.lock().broken.get_or_insert(error);
        if !self.is_temporary(node) {
            return Err(error);
        }
        buffer.give_up();
        self.note_change(node, |size| change.end(size));
        Ok(())
    }

    /// Updates the attributes of a file whose content has changed.
    fn note_change(&self, node: &Node, size: impl FnOnce(u64) -> u64) {
        node.changed_in_place();
        let now = self.now();
        let mut meta = node.meta.lock();
        meta.attr.size = size(meta.attr.size);
        meta.attr.mtime = now;
        meta.attr.ctime = now;
    }

    fn try_change(&self, node: &Arc<Node>, change: Change<'_>, drop_set_id: bool) -> Result<()> {
        let content = match &node.body {
            Body::File(file) => &file.content,
            Body::Directory(_) => return Err(Error::IsADirectory),
            Body::Snapshot(_) | Body::Told(_) | Body::Symlink(_) => return Err(Error::Hidden),
        };
        if change.end(0) > self.config.max_entry {
            return Err(Error::TooLarge);
        }
        let mut content = loop {
            let guard = content.lock();
            if guard.is_buffered() {
                break guard;
            }
            let version = node.version.load(Ordering::Acquire);
            drop(guard);
            let buffer = self.buffer_of(node)?;
            let mut guard = content.lock();
            if guard.is_buffered() || node.version.load(Ordering::Acquire) != version {
                continue;
            }
            let Some(buffer) = buffer else { continue };
            guard.change(buffer);
            self.memory.remove(node.ino);
            break guard;
        };
        let Content::Buffered(buffer) = &mut *content else {
            return Err(Error::Stale);
        };
        if node.broken().is_some() {
            if matches!(change, Change::Resize(0)) {
                node.meta.lock().broken = None;
                self.refused.clear(node.ino);
            } else if self.is_temporary(node) {
                self.note_change(node, |size| change.end(size));
                return Ok(());
            }
        }
        self.mark_committed(node);
        let changed = change.apply(buffer);
        let mut loses_set_id = false;
        if changed.is_ok() {
            self.note_change(node, |_| buffer.bytes().len() as u64);
            let mut meta = node.meta.lock();
            loses_set_id = drop_set_id && meta.attr.mode & SET_ID != 0;
            if loses_set_id {
                meta.attr.mode &= !SET_ID;
            }
        }
        drop(content);
        if loses_set_id {
            // The reply to a write has no attributes, and the kernel keeps the mode it knows.
            self.notices.send(Notice::Inode { ino: node.ino });
        }
        // Also after a failure: the content is in a buffer now.
        self.in_place_changed(node);
        changed
    }

    /// A buffer with the content of a file that has none yet. `None`: try again, its name has just gone.
    fn buffer_of(&self, node: &Node) -> Result<Option<Buffer>> {
        let attr = node.meta.lock().attr;
        self.check_owner(&attr)?;
        let held = match node.content().map(|content| content.lock()).as_deref() {
            Some(Content::Held(held)) => Some(held.clone()),
            Some(Content::Committed) => None,
            Some(Content::Buffered(_)) | None => return Ok(None),
        };
        let bytes = match held {
            Some(Held::Bytes(held)) => held.0.to_vec(),
            Some(Held::File(held)) => {
                let file = &held.0;
                let size = self.disk.size(file)?;
                self.disk
                    .read(file, 0, self.bufferable(size)?, Patience::Any)?
            }
            None => match self.committed(node, Patience::Any)? {
                Some(Committed::Whole(bytes)) => bytes.to_vec(),
                Some(Committed::File(file)) => {
                    let size = self.disk.size(&file)?;
                    self.disk
                        .read(&file, 0, self.bufferable(size)?, Patience::Any)?
                }
                None => return Ok(None),
            },
        };
        self.bufferable(bytes.len() as u64)?;
        Buffer::new(&self.staging, bytes, true).map(Some)
    }

    fn bufferable(&self, size: u64) -> Result<usize> {
        usize::try_from(size)
            .ok()
            .filter(|_| size <= self.config.max_entry)
            .ok_or(Error::TooLarge)
    }

    /// Puts a file's content on the medium, if it has a name of its own. A temporary file stays in
    /// memory: its content is flushed by the rename that commits it.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub fn fsync(&self, ino: u64) -> Result<()> {
        let node = self.node(ino)?;
        let Some(content) = node.content() else {
            return Ok(());
        };
        if let Content::Buffered(buffer) = &mut *content.lock() {
            buffer.flush_wanted = true;
            if self.is_temporary(&node) {
                return Ok(());
            }
        }
        if self.persist(&node)? {
            return Ok(());
        }
        self.flush_committed(&node)
    }

    /// Flushes a file that has no uncommitted content.
    fn flush_committed(&self, node: &Arc<Node>) -> Result<()> {
        let Some(place) = node.place() else {
            return Ok(());
        };
        let folder = place.parent.folder();
        let file = match self.disk.open_file(&folder.disk, &place.name) {
            Ok(file) => file,
            // Replaced or removed meanwhile: there is nothing left to flush.
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.disk.flush_file(&file)?;
        self.disk.flush_dir(&folder.disk)?;
        Ok(())
    }

    /// Flushes a directory to the medium: its names, and the files that have no name on disk yet.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub fn fsync_dir(&self, ino: u64) -> Result<()> {
        let dir = self.directory(ino)?;
        for child in dir.nodes() {
            // A temporary file is named by the rename that commits it.
            if !is_buffered(&child) || self.is_temporary(&child) {
                continue;
            }
            if let Some(Content::Buffered(buffer)) =
                child.content().map(|content| content.lock()).as_deref_mut()
            {
                buffer.flush_wanted = true;
            }
            self.persist(&child)?;
        }
        Ok(self.disk.flush_dir(&dir.folder().disk)?)
    }

    /// Commits what is in a directory and below it, so that renaming it moves the whole.
    pub(super) fn commit_below(&self, directory: &Dir) -> Result<()> {
        if let Some(error) = self.below(directory).find_map(|node| node.broken()) {
            return Err(error);
        }
        for node in self.below(directory) {
            self.persist(&node)?;
        }
        Ok(())
    }
}
