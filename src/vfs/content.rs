//! Reading content, from wherever it is.

use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::Vfs;
use super::error::{Error, Result};
use super::file::{Content, ContentLock, Held};
use super::judge::Judgement;
use super::node::{Body, Node, Place};
use crate::format::engine::{HEAD_LEN, Kind as Form};
use crate::locks::Guard;
use crate::tier::{Digest, DiskFile, Found, Patience};

/// Bytes that were read: shared with the memory tier where possible.
#[derive(Debug)]
pub enum Bytes {
    /// A part of content that is kept in memory.
    Shared(Arc<[u8]>, Range<usize>),
    /// A copy.
    Owned(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Shared(bytes, range) => &bytes[range.clone()],
            Self::Owned(bytes) => bytes,
        }
    }
}

fn range(available: usize, offset: u64, len: u32) -> Range<usize> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(available);
    start..start.saturating_add(len as usize).min(available)
}

fn shared(bytes: Arc<[u8]>, offset: u64, len: u32) -> Bytes {
    let range = range(bytes.len(), offset, len);
    Bytes::Shared(bytes, range)
}

/// Content of at most so many bytes is held in memory rather than by a descriptor.
const SMALL: usize = 64 << 10;

/// The page cache's unit, on the machines with larger pages as well: a smaller one does no harm.
const PAGE: usize = 4096;

/// What the kernel's page cache lacks of a file that was just committed.
///
/// To be stored there before the rename is answered: until then who wrote the file is waiting, and a write
/// that comes later cannot be overtaken. If [`Vfs::is_current`] does not hold afterwards another thread has
/// written meanwhile, and the kernel's copy must be invalidated.
#[derive(Debug, Clone)]
pub struct Tail {
    /// The inode number.
    pub ino: u64,
    content: Arc<[u8]>,
    /// Where it begins.
    pub offset: usize,
    /// The inode's version that it is of.
    version: u64,
}

impl Tail {
    /// The bytes from [`Tail::offset`] on.
    pub fn bytes(&self) -> &[u8] {
        &self.content[self.offset..]
    }
}

/// Committed content: whole where it is small enough to be kept, else a file to read parts from.
pub(super) enum Committed {
    Whole(Arc<[u8]>),
    File(DiskFile),
}

impl Vfs {
    /// Reads up to `len` bytes of a file from `offset`; fewer only at its end.
    ///
    /// # Errors
    /// EISDIR, ESTALE; EAGAIN with [`Patience::None`] if the disk would have to be waited for; EIO if the content on disk does not match its digest; those of the backing filesystem.
    pub fn read(&self, ino: u64, offset: u64, len: u32, patience: Patience) -> Result<Bytes> {
        let node = self.node(ino)?;
        let content = match &node.body {
            Body::File(file) => &file.content,
            Body::Snapshot(bytes) | Body::Told(bytes) => {
                return Ok(shared(Arc::clone(bytes), offset, len));
            }
            Body::Directory(_) => return Err(Error::IsADirectory),
            Body::Symlink(_) => {
                return Err(Error::WrongKind);
            }
        };
        loop {
            let held = match &*lock_content(content, patience)? {
                Content::Buffered(buffer) => {
                    if let Some(error) = node.broken().filter(|_| self.is_temporary(&node)) {
                        return Err(error);
                    }
                    node.was_read.store(true, Ordering::Release);
                    let bytes = buffer.bytes();
                    return Ok(Bytes::Owned(
                        bytes[range(bytes.len(), offset, len)].to_vec(),
                    ));
                }
                Content::Held(held) => Some(held.clone()),
                Content::Committed => None,
            };
            return match held {
                Some(Held::Bytes(held)) => Ok(shared(Arc::clone(&held.0), offset, len)),
                Some(Held::File(held)) => {
                    self.check_held(&node, &held.0, patience)?;
                    let bytes = self.read_disk(&held.0, offset, len as usize, patience)?;
                    Ok(Bytes::Owned(bytes))
                }
                None => match self.committed(&node, patience) {
                    Ok(Some(Committed::Whole(bytes))) => Ok(shared(bytes, offset, len)),
                    Ok(Some(Committed::File(file))) => Ok(Bytes::Owned(self.read_disk(
                        &file,
                        offset,
                        len as usize,
                        patience,
                    )?)),
                    // Its name went while it was looked for: it is held by now, if it could be.
                    Ok(None) if content.lock().is_committed() => Err(Error::Lost),
                    Ok(None) => continue,
                    Err(error) if error.is_unfit() => {
                        self.quarantine(&node, error);
                        Err(error)
                    }
                    Err(error) => Err(error),
                },
            };
        }
    }

    fn read_disk(
        &self,
        file: &DiskFile,
        offset: u64,
        len: usize,
        patience: Patience,
    ) -> Result<Vec<u8>> {
        self.disk
            .read(file, offset, len, patience)
            .map_err(|errno| match (errno, patience) {
                (Errno::AGAIN, Patience::None) => Error::WouldWait,
                _ => Error::from(errno),
            })
    }

    /// Committed content of `node`, from the memory tier or from disk, checked and kept. `None`: it is not
    /// committed under a name any more.
    pub(super) fn committed(&self, node: &Node, patience: Patience) -> Result<Option<Committed>> {
        if let Some(bytes) = self.memory.get(node.ino) {
            return Ok(Some(Committed::Whole(bytes)));
        }
        let version = node.version.load(Ordering::Acquire);
        let before = node.meta.lock().attr;
        let loaded = self.load(node, patience)?;
        if let Some((_, file)) = &loaded {
            self.follow(node, &before, file);
            node.verified.store(true, Ordering::Release);
        }
        let found = loaded.map(|(content, _)| content);
        if let (Some(Committed::Whole(bytes)), Some(content)) = (&found, node.content()) {
            let content = content.lock();
            // A change in place, or a commit of one, that came meanwhile has newer content.
            if content.is_committed() && node.version.load(Ordering::Acquire) == version {
                self.memory.insert(node.ino, Arc::clone(bytes));
                self.appraise(node);
            }
        }
        Ok(found)
    }

    /// Reads `node`'s content from the backing directory.
    ///
    /// The file is found by its name, which a commit, an eviction or a rename may give to another file at
    /// any time. So names are locked, or shown afterwards to have stayed as they were.
    pub(super) fn load(
        &self,
        node: &Node,
        patience: Patience,
    ) -> Result<Option<(Committed, Found)>> {
        if let Some(place) = node.place()
            && let Some(sequence) = place.parent.folder().stable_sequence()
            // A rename that ended before the sequence was read has moved it.
            && node.is_at(&place)
        {
            let found = self.load_named(node, &place, patience);
            if place.parent.folder().sequence.load(Ordering::Acquire) == sequence {
                return found.map(Some);
            }
        }
        loop {
            let Some(place) = node.place() else {
                return Ok(None);
            };
            let _names = place.parent.folder().names.lock();
            if node.is_at(&place) {
                return self.load_named(node, &place, patience).map(Some);
            }
        }
    }

    /// Reads what a name in the backing directory stands for, and checks it, with what was found there.
    fn load_named(
        &self,
        node: &Node,
        place: &Place,
        patience: Patience,
    ) -> Result<(Committed, Found)> {
        let folder = place.parent.folder();
        let file = self.disk.open_file(&folder.disk, &place.name)?;
        let found = self.disk.look(&file)?;
        let owner = node.meta.lock().attr.uid;
        if found.uid != owner && !self.disk.trusts(found.uid) {
            return Err(Error::Stranger);
        }
        if !self.memory.fits(found.size) && found.size > self.config.max_entry {
            self.check_large(node, place, &file, &found, patience)?;
            return Ok((Committed::File(file), found));
        }
        let len = usize::try_from(found.size).map_err(|_| Error::TooLarge)?;
        let bytes = self.read_disk(&file, 0, len, patience)?;
        let head = &bytes[..bytes.len().min(HEAD_LEN)];
        let form = self.engines.recognise(Path::new(&*place.name), head);
        let digest = Digest::of(&bytes);
        if !self.disk.is_as_vouched(&file, &digest) {
            return Err(Error::Stranger);
        }
        if self.disk.is_sealed() {
            self.check_seal(&file, place, &found, &digest)?;
            return Ok((Committed::Whole(bytes.into()), found));
        }
        let judgement = self.judge(&file, &place.name, &found, || Ok(digest))?;
        let sound = match (judgement, form) {
            (Judgement::Sound, _) => true,
            // Nobody's is not ours to set aside.
            (Judgement::Damaged, Form::Foreign) => return Err(Error::Damaged),
            (Judgement::Damaged, _) => false,
            // Nor to sign.
            (Judgement::New, Form::Foreign | Form::Misformed(_)) => true,
            (Judgement::New, _) => self.adopt_content(&file, &place.name, &found, &bytes),
        };
        if sound {
            Ok((Committed::Whole(bytes.into()), found))
        } else {
            Err(Error::Corrupt)
        }
    }

    /// What the kernel's page cache lacks of a file that has just been committed: its last page, which
    /// engines fill in part only. (Pages that were written whole are there: Linux, fs/fuse/file.c,
    /// fuse_fill_write_pages.) `None`: nothing, or it is not known to lack it.
    pub(super) fn tail(&self, node: &Node) -> Option<Tail> {
        let ino = node.ino;
        let version = node.version.load(Ordering::Acquire);
        if node.was_read.load(Ordering::Acquire) || is_buffered(node) {
            return None;
        }
        let content = self.memory.peek(ino)?;
        let offset = content.len() - content.len() % PAGE;
        (offset < content.len()).then_some(Tail {
            ino,
            content,
            offset,
            version,
        })
    }

    /// Whether the inode's content is still what it was.
    pub fn is_current(&self, tail: &Tail) -> bool {
        self.node(tail.ino)
            .is_ok_and(|node| node.version.load(Ordering::Acquire) == tail.version)
    }

    /// Keeps the content of `node` readable for the programs that have it open, before its name goes: small content
    /// that is in memory there, else the file itself by its descriptor, and in memory only where there are no more
    /// descriptors. The caller holds the names of its directory.
    pub(super) fn hold(&self, node: &Node, place: &Place) {
        // Whether anybody has it open is known only when nobody can look it up any more.
        let held = self.small_in_memory(node).map_or_else(
            || {
                self.hold_file(place)
                    .or_else(|error| self.hold_bytes(node, place).ok_or(error))
            },
            Ok,
        );
        self.set_held(node, place, held);
    }

    /// As [`Vfs::hold`], but nothing of the content needs the disk any more, if there is room for it.
    pub(super) fn hold_in_memory(&self, node: &Node, place: &Place) {
        let held = match self.hold_bytes(node, place) {
            Some(held) => Ok(held),
            None => self.hold_file(place),
        };
        self.set_held(node, place, held);
    }

    fn set_held(&self, node: &Node, place: &Place, held: Result<Held>) {
        let Some(content) = node.content() else {
            return;
        };
        match held {
            Ok(held) => content.lock().hold(held),
            Err(error) if node.is_known() => log::warn!(
                "{:?} will not stay readable for who has it open: {error}",
                place.name
            ),
            Err(error) => log::debug!("{:?} is not kept readable: {error}", place.name),
        }
    }

    fn small_in_memory(&self, node: &Node) -> Option<Held> {
        let bytes = self.memory.peek(node.ino)?;
        if bytes.len() > SMALL {
            return None;
        }
        self.orphans.bytes(bytes)
    }

    fn hold_file(&self, place: &Place) -> Result<Held> {
        let folder = place.parent.folder();
        let charge = self.orphans.descriptor().ok_or(Error::Disk(Errno::MFILE))?;
        let file = self.disk.open_file(&folder.disk, &place.name)?;
        Ok(Held::File(Arc::new((file, charge))))
    }

    fn hold_bytes(&self, node: &Node, place: &Place) -> Option<Held> {
        let bytes = match self.memory.peek(node.ino) {
            Some(bytes) => bytes,
            None => match self.load_named(node, place, Patience::Any) {
                Ok((Committed::Whole(bytes), _)) => bytes,
                Ok((Committed::File(_), _)) | Err(_) => return None,
            },
        };
        self.orphans.bytes(bytes)
    }

    /// Takes [`Vfs::hold`] back: the name stayed after all.
    pub(super) fn unhold(&self, node: &Node) {
        if let Some(content) = node.content() {
            content.lock().release();
        }
    }
}

/// A file's content, which whoever writes it to the disk holds meanwhile.
///
/// # Errors
/// With [`Patience::None`] EAGAIN while another thread has it.
pub(super) fn lock_content(
    content: &ContentLock,
    patience: Patience,
) -> Result<Guard<parking_lot::MutexGuard<'_, Content>>> {
    match patience {
        Patience::Any => Ok(content.lock()),
        Patience::None => content.try_lock().ok_or(Error::WouldWait),
    }
}

/// Whether a file has uncommitted content.
pub(super) fn is_buffered(node: &Node) -> bool {
    node.content()
        .is_some_and(|content| content.lock().is_buffered())
}
