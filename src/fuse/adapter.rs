//! What the callbacks share: the tree, the threads, and what is done before and after each request.

use std::sync::{Arc, OnceLock};

use fuser::ReplyEmpty;

use super::capabilities::Capabilities;
use super::numbers::Numbers;
use super::replies::Replies;
use crate::vfs::{Operation, Result, Supplement, Vfs};
use crate::wakeup::Bursts;
use crate::wakeup::Pool;
use crate::wakeup::{OnErrand, Readers};

/// Reads that may wait for the disk at the same time.
const READS: usize = 4;

/// Flushes that may. They take long, and share what the filesystem writes.
const FLUSHES: usize = 8;

/// The files of one kernel mount, as fuser calls them.
#[derive(Debug)]
pub struct Adapter {
    pub(super) vfs: Arc<Vfs>,
    pub(super) replies: Replies,
    pub(super) capabilities: Arc<OnceLock<Capabilities>>,
    /// For content that is not in memory.
    pub(super) reads: Pool,
    /// For what waits for the medium. Apart from the reads, which it would keep waiting.
    pub(super) flushes: Pool,
    pub(super) bursts: Arc<Bursts>,
    pub(super) readers: Arc<Readers>,
}

/// A request in the hands of the thread that read it. When this is dropped that thread is done with it: the reply is
/// out, or a thread of the pool will send it.
pub(super) struct Handled<'a>(&'a Adapter);

impl Drop for Handled<'_> {
    fn drop(&mut self) {
        self.0.readers.before_reading();
        self.0.bursts.after_request();
    }
}

/// The same for a request that may have to wait, for the disk or for a lock that is held over the disk: another
/// thread reads meanwhile if it does. When this is dropped, first that is over.
pub(super) struct MayWait<'a> {
    _on_errand: Option<OnErrand<'a>>,
    _handled: Handled<'a>,
}

impl Adapter {
    /// Serves `vfs`.
    ///
    /// # Errors
    /// That of the system, if it has no room for a thread.
    pub fn new(vfs: Arc<Vfs>, bursts: Arc<Bursts>, readers: Arc<Readers>) -> std::io::Result<Self> {
        Ok(Self {
            bursts,
            readers,
            replies: Replies::new(Arc::clone(&vfs)),
            vfs,
            capabilities: Arc::default(),
            reads: Pool::start("kidafs-read", READS)?,
            flushes: Pool::start("kidafs-flush", FLUSHES)?,
        })
    }

    /// What only the adapter knows, for the statistics.
    pub fn numbers(&self) -> Arc<dyn Supplement> {
        Arc::new(Numbers {
            capabilities: Arc::clone(&self.capabilities),
            bursts: Arc::clone(&self.bursts),
        })
    }

    /// Where the session's notifier is to be put, once there is one.
    pub fn kernel(&self) -> Arc<OnceLock<fuser::Notifier>> {
        self.replies.kernel()
    }

    pub(super) fn offers(&self, what: impl Fn(&Capabilities) -> bool) -> bool {
        self.capabilities.get().is_some_and(what)
    }

    /// For what waits for the disk: another thread runs it and replies.
    pub(super) fn later(
        &self,
        operation: Operation,
        run: impl FnOnce(&Vfs) -> Result<()> + Send + 'static,
        reply: ReplyEmpty,
    ) {
        let replies = self.replies.clone();
        self.flushes
            .run(move || replies.done(operation, run(&replies.vfs), reply));
    }

    /// Counts a request. What is returned is to be dropped after the reply.
    #[must_use]
    pub(super) fn request(&self, operation: Operation) -> Handled<'_> {
        self.vfs.counters().request(operation);
        Handled(self)
    }

    /// As [`Adapter::request`], for what may have to wait.
    #[must_use]
    pub(super) fn request_that_may_wait(&self, operation: Operation) -> MayWait<'_> {
        self.vfs.counters().request(operation);
        MayWait {
            _on_errand: self.readers.errand(),
            _handled: Handled(self),
        }
    }
}
