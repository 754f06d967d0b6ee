//! A file's states, and the steps between them.
//!
//! | state | content | under its name on disk | how it begins | how it ends |
//! |---|---|---|---|---|
//! | staged | in a buffer | nothing | [`File::staged`]: created | [`Content::settle`]: its rename or, under an ordinary name, the write-back commits it; [`Content::commit_in_memory`] |
//! | waiting | in a buffer | nothing, or what it replaces | [`Content::commit_in_memory`]: renamed with `--durability async` | [`Content::settle`]: written back |
//! | dirty | in a buffer | its content before | [`Content::change`]: written in place | [`Content::settle`]: written back |
//! | clean | on disk, perhaps in the memory tier | it | [`File::clean`]: found; [`Content::settle`] | [`Content::change`]; [`Content::hold`] |
//! | held | kept: bytes, or the file by a descriptor | it, about to go | [`Content::hold`] | [`Content::release`]: the name stays, clean; the name goes: orphan |
//! | orphan | kept | nothing, and it has no name | its name went while it was held | [`Content::change`]: loose; forgotten by the kernel |
//! | loose | in a buffer | nothing, and it has no name | its name went while it was in a buffer; [`Content::change`] of an orphan | forgotten by the kernel |
//! | lost | nowhere: reading fails with EIO | nothing, and it has no name | its name went and it could not be held | forgotten by the kernel |
//!
//! Whether there is a name is the inode's part ([`Meta::place`](super::node::Meta)), what there is on disk under it is what
//! the file is charged for ([`File::on_disk`]), and the rest is [`Content`]. The combinations that the table has not are
//! refused by [`File::assert_consistent`] in debug builds, at the end of each step.

use std::sync::Arc;

use super::budget::{Budget, Charge, DiskUse, OnDisk};
use super::buffer::Buffer;
use crate::locks::{self, CONTENT};
use crate::tier::DiskFile;

/// A file's content; held while that is read or written on disk.
pub(super) type ContentLock = locks::Mutex<CONTENT, Content>;

/// What an inode that is a file has.
#[derive(Debug)]
pub(super) struct File {
    pub(super) content: ContentLock,
    /// What there is on disk under its name, as it counts against the limits.
    pub(super) on_disk: OnDisk,
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

impl File {
    /// One that was just created.
    pub(super) fn staged(buffer: Buffer, used: &Arc<DiskUse>) -> Self {
        debug_assert!(buffer.staged && !buffer.on_disk, "it is new");
        Self {
            content: ContentLock::new(Content::Buffered(Box::new(buffer))),
            on_disk: OnDisk::nothing(used),
        }
    }

    /// One that was found on disk; what it counts is to be charged.
    pub(super) fn clean(used: &Arc<DiskUse>) -> Self {
        Self {
            content: ContentLock::new(Content::Committed),
            on_disk: OnDisk::nothing(used),
        }
    }

    /// Fails, in a debug build, if this is no state of the table. `named`: whether the inode has a name.
    pub(super) fn assert_consistent(&self, content: &Content, named: bool) {
        let on_disk = self.on_disk.is_charged();
        let fits = match content {
            _ if !named => !on_disk,
            Content::Buffered(buffer) if buffer.staged => !on_disk && !buffer.on_disk,
            Content::Buffered(buffer) => on_disk == buffer.on_disk,
            Content::Committed | Content::Held(_) => on_disk,
        };
        debug_assert!(
            fits,
            "no state of a file: {content:?}, named: {named}, on disk: {on_disk}"
        );
    }
}

impl Content {
    /// A clean file becomes dirty, an orphan loose: its content is in `buffer` from now on, where it is changed.
    pub(super) fn change(&mut self, mut buffer: Buffer) {
        let clean = self.is_committed();
        debug_assert!(!self.is_buffered(), "it is in a buffer already");
        buffer.on_disk = clean;
        buffer.own_xattrs = !clean;
        buffer.staged = false;
        *self = Self::Buffered(Box::new(buffer));
    }

    /// A staged file gets its final name in memory, and waits to be written there. `over`: whether there is a file under
    /// that name on disk.
    pub(super) fn commit_in_memory(&mut self, over: bool) {
        let Self::Buffered(buffer) = self else {
            debug_assert!(false, "only what is in a buffer is committed in memory");
            return;
        };
        buffer.staged = false;
        buffer.on_disk = over;
    }

    /// The buffer's content is on disk: the file is clean. What was in the buffer is returned.
    pub(super) fn settle(&mut self) -> Option<Box<Buffer>> {
        match std::mem::replace(self, Self::Committed) {
            Self::Buffered(buffer) => Some(buffer),
            other => {
                debug_assert!(false, "only what is in a buffer is written");
                *self = other;
                None
            }
        }
    }

    /// A clean file is about to lose its name. What is in a buffer is kept by that.
    pub(super) fn hold(&mut self, held: Held) {
        if self.is_committed() {
            *self = Self::Held(held);
        }
    }

    /// The name stayed after all.
    pub(super) fn release(&mut self) {
        if matches!(self, Self::Held(_)) {
            *self = Self::Committed;
        }
    }

    pub(super) fn is_committed(&self) -> bool {
        matches!(self, Self::Committed)
    }

    pub(super) fn is_buffered(&self) -> bool {
        matches!(self, Self::Buffered(_))
    }
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
