//! What the kernel is answered: results and errors, and for how long it may take them for granted.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fuser::{
    Errno, Generation, INodeNo, Notifier, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyXattr,
};

use super::convert::{errno, file_attr, missing};
use crate::vfs::{Bytes, Error, Kind, Operation, Renamed, Result, Stat, Tail, Vfs};

/// Inode numbers are never used again.
pub(super) const GENERATION: Generation = Generation(0);

/// As good as for ever: attributes change through this mount alone, or are invalidated by a notice.
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// How long a listing may stand for a look-up that would find a corrupt file missing.
const UNCHECKED_TTL: Duration = Duration::from_secs(3);

/// Turns results into replies, from whichever thread has them.
#[derive(Debug, Clone)]
pub(super) struct Replies {
    pub(super) vfs: Arc<Vfs>,
    kernel: Arc<OnceLock<Notifier>>,
}

impl Replies {
    pub(super) fn new(vfs: Arc<Vfs>) -> Self {
        Self {
            vfs,
            kernel: Arc::default(),
        }
    }

    pub(super) fn kernel(&self) -> Arc<OnceLock<Notifier>> {
        Arc::clone(&self.kernel)
    }

    /// The answer to a rename: first the kernel is given what its page cache lacks of the file that was committed, so that the first reader need not ask. Not from a thread that answers reads: it may wait for one.
    pub(super) fn renamed(&self, renamed: Result<Renamed>, reply: ReplyEmpty) {
        if let Ok(Renamed { push: Some(tail) }) = &renamed
            && let Some(kernel) = self.kernel.get()
            && let Err(error) = self.push(kernel, tail)
        {
            // It will be read when it is wanted.
            log::debug!("the last page of inode {} was not taken: {error}", tail.ino);
        }
        self.done(Operation::Rename, renamed.map(drop), reply);
    }

    fn push(&self, kernel: &Notifier, tail: &Tail) -> std::io::Result<()> {
        let ino = INodeNo(tail.ino);
        kernel.store(ino, tail.offset as u64, tail.bytes())?;
        if self.vfs.is_current(tail) {
            return Ok(());
        }
        kernel.inval_inode(ino, 0, 0)
    }

    /// How long the kernel may use a name without asking. The one look-up that a hot entry makes after it
    /// is how its use is noticed.
    pub(super) fn entry_ttl(&self, stat: &Stat) -> Duration {
        match stat.kind {
            _ if stat.generated => Vfs::GENERATED_TTL,
            Kind::Directory => FOREVER,
            Kind::File | Kind::Symlink => self.vfs.config().entry_timeout,
        }
    }

    pub(super) fn attr_ttl(&self, stat: &Stat) -> Duration {
        match stat.kind {
            Kind::Directory if stat.generated => Vfs::GENERATED_TTL,
            _ => FOREVER,
        }
    }

    /// The time-out of a name and its attributes in a listing, where one serves for both. What has not been
    /// checked yet is soon to be looked up by its name: only that checks it.
    pub(super) fn listing_ttl(&self, stat: &Stat) -> Duration {
        let ttl = self.entry_ttl(stat).min(self.attr_ttl(stat));
        if stat.checked {
            ttl
        } else {
            ttl.min(UNCHECKED_TTL)
        }
    }

    /// The answer to a look-up: a miss is one that the kernel is to remember.
    pub(super) fn found(&self, parent: u64, result: Result<Stat>, reply: ReplyEntry) {
        if result == Err(Error::NoEntry) {
            let ttl = match self.vfs.is_hidden_folder(parent) {
                true => Vfs::GENERATED_TTL,
                false => self.vfs.config().entry_timeout,
            };
            return reply.entry_with_ttls(&Duration::ZERO, &ttl, &missing(), GENERATION);
        }
        self.entry(Operation::Lookup, result, reply);
    }

    pub(super) fn entry(&self, operation: Operation, result: Result<Stat>, reply: ReplyEntry) {
        match result {
            Ok(stat) => {
                let (attr, entry) = (self.attr_ttl(&stat), self.entry_ttl(&stat));
                reply.entry_with_ttls(&attr, &entry, &file_attr(&stat), GENERATION);
            }
            Err(error) => reply.error(self.failed(operation, &error)),
        }
    }

    pub(super) fn attr(&self, operation: Operation, result: Result<Stat>, reply: ReplyAttr) {
        match result {
            Ok(stat) => reply.attr(&self.attr_ttl(&stat), &file_attr(&stat)),
            Err(error) => reply.error(self.failed(operation, &error)),
        }
    }

    pub(super) fn data(&self, result: Result<Bytes>, reply: ReplyData) {
        match result {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(self.failed(Operation::Read, &error)),
        }
    }

    pub(super) fn done(&self, operation: Operation, result: Result<()>, reply: ReplyEmpty) {
        match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.failed(operation, &error)),
        }
    }

    pub(super) fn xattr(
        &self,
        operation: Operation,
        result: Result<Vec<u8>>,
        size: u32,
        reply: ReplyXattr,
    ) {
        match result {
            Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
            Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
            Ok(value) => reply.data(&value),
            Err(error) => reply.error(self.failed(operation, &error)),
        }
    }

    /// Counts and logs a failure; returns what the caller is told.
    pub(super) fn failed(&self, operation: Operation, error: &Error) -> Errno {
        log::debug!("{}: {error}", operation.name());
        self.vfs.counters().error(error.errno());
        errno(error)
    }
}
