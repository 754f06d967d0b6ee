//! Writing, truncating and flushing content.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Vfs;
use super::buffer::Buffer;
use super::content::Committed;
use super::error::{Error, Result};
use super::node::{Body, Content, Held, Node};
use super::notice::Notice;
use crate::tier::Patience;

/// The set-user-id and set-group-id bits.
const SET_ID: u32 = 0o6000;

impl Vfs {
    /// Writes `data` at `offset`. The content is uncommitted from then on. `drop_set_id`: the kernel asks
    /// for the set-id bits to go, as they do when anybody but root writes.
    ///
    /// # Errors
    /// EFBIG beyond `--max-entry`, ENOSPC beyond `--staging`, EROFS, EISDIR, ESTALE, EPERM in the hidden folder.
    pub fn write(&self, ino: u64, offset: u64, data: &[u8], drop_set_id: bool) -> Result<()> {
        let end = offset
            .checked_add(data.len() as u64)
            .ok_or(Error::TooLarge)?;
        self.change(ino, end, drop_set_id, |buffer| buffer.write(offset, data))
    }

    /// Cuts a file off at `size`, or fills it up with zeros.
    pub(super) fn truncate(&self, ino: u64, size: u64) -> Result<()> {
        self.change(ino, size, true, |buffer| buffer.resize(size))
    }

    fn change(
        &self,
        ino: u64,
        reach: u64,
        drop_set_id: bool,
        change: impl Fn(&mut Buffer) -> Result<()>,
    ) -> Result<()> {
        self.check_writable()?;
        match self.try_change(ino, reach, drop_set_id, &change) {
            // What waits to be written anyway (in place, or committed with `async`) is written now.
            Err(Error::StagingFull) if self.persist_all().persisted > 0 => {
                self.try_change(ino, reach, drop_set_id, &change)
            }
            result => result,
        }
    }

    fn try_change(
        &self,
        ino: u64,
        reach: u64,
        drop_set_id: bool,
        change: impl Fn(&mut Buffer) -> Result<()>,
    ) -> Result<()> {
        let node = self.node(ino)?;
        let content = match &node.body {
            Body::File(content) => content,
            Body::Directory(_) => return Err(Error::IsADirectory),
            Body::Snapshot(_) | Body::Symlink(_) => return Err(Error::Hidden),
        };
        if reach > self.config.max_entry {
            return Err(Error::TooLarge);
        }
        let now = self.now();
        let mut content = loop {
            let guard = content.lock();
            if matches!(*guard, Content::Buffered(_)) {
                break guard;
            }
            let version = node.version.load(Ordering::Acquire);
            drop(guard);
            let buffer = self.buffer_of(&node)?;
            let mut guard = content.lock();
            if matches!(*guard, Content::Buffered(_))
                || node.version.load(Ordering::Acquire) != version
            {
                continue;
            }
            let named = matches!(*guard, Content::Committed);
            let Some(mut buffer) = buffer else { continue };
            buffer.on_disk = named;
            buffer.own_xattrs = !named;
            *guard = Content::Buffered(Box::new(buffer));
            self.memory.remove(node.ino);
            break guard;
        };
        let Content::Buffered(buffer) = &mut *content else {
            return Err(Error::Stale);
        };
        node.changed_in_place();
        let changed = change(buffer);
        let mut loses_set_id = false;
        if changed.is_ok() {
            let mut meta = node.meta.lock();
            meta.attr.size = buffer.bytes().len() as u64;
            meta.attr.mtime = now;
            meta.attr.ctime = now;
            loses_set_id = drop_set_id && meta.attr.mode & SET_ID != 0;
            if loses_set_id {
                meta.attr.mode &= !SET_ID;
            }
        }
        drop(content);
        if loses_set_id {
            // The reply to a write has no attributes, and the kernel keeps the mode it knows.
            self.notices.send(Notice::Inode { ino });
        }
        // Also after a failure: the content is in a buffer now.
        self.in_place_changed(&node);
        changed
    }

    /// A buffer with the content of a file that has none yet. `None`: try again, its name has just gone.
    fn buffer_of(&self, node: &Node) -> Result<Option<Buffer>> {
        let held = match node.content().map(|content| content.lock()).as_deref() {
            Some(Content::Held(held)) => Some(held.clone()),
            Some(Content::Committed) => None,
            Some(Content::Buffered(_)) | None => return Ok(None),
        };
        let bytes = match held {
            Some(Held::Bytes(bytes)) => bytes.to_vec(),
            Some(Held::File(file)) => {
                let size = self.disk.size(&file)?;
                self.disk
                    .read(&file, 0, self.bufferable(size)?, Patience::Any)?
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
        let Some(folder) = place.parent.folder() else {
            return Ok(());
        };
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

    /// Flushes a directory's names to the medium.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub fn fsync_dir(&self, ino: u64) -> Result<()> {
        match self.directory(ino)?.folder() {
            Some(folder) => Ok(self.disk.flush_dir(&folder.disk)?),
            None => Ok(()),
        }
    }
}
