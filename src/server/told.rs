//! Tells the log what was evicted, by reason: a line a reason, and at most one a minute.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use bytesize::ByteSize;

use crate::daemon::EVENTS;
use crate::evict::Reason;
use crate::stats::Stats;
use crate::vfs::Vfs;

/// How often it is looked whether there is something to tell.
const PERIOD: Duration = Duration::from_secs(60);

/// The thread that tells.
pub(super) struct Teller {
    end: Sender<()>,
    thread: JoinHandle<()>,
}

impl Teller {
    /// Starts it for a mount that is called `dir`.
    ///
    /// # Errors
    /// When there is no thread.
    pub(super) fn start(vfs: Arc<Vfs>, dir: String) -> io::Result<Self> {
        let (end, ended) = mpsc::channel();
        let thread = std::thread::Builder::new().name("kidafs-log".to_owned());
        let thread = thread.spawn(move || {
            let mut told = Told::default();
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(PERIOD) {
                told.tell(&vfs.stats(), &dir);
            }
            told.tell(&vfs.stats(), &dir);
        })?;
        Ok(Self { end, thread })
    }

    /// Has it tell what is untold, and ends it.
    pub(super) fn stop(self) {
        drop(self.end);
        if self.thread.join().is_err() {
            log::error!("a thread panicked");
        }
    }
}

/// What was told already.
#[derive(Default)]
struct Told {
    evictions: BTreeMap<Reason, u64>,
    bytes: u64,
}

impl Told {
    fn tell(&mut self, stats: &Stats, dir: &str) {
        for line in self.lines(stats, dir) {
            log::info!(target: EVENTS, "{line}");
        }
    }

    fn lines(&mut self, stats: &Stats, dir: &str) -> Vec<String> {
        let bytes = stats.evicted_bytes.saturating_sub(self.bytes);
        let more: Vec<_> = stats
            .evictions
            .iter()
            .filter_map(|(reason, count)| {
                let told = self.evictions.get(reason).copied().unwrap_or(0);
                let more = count.saturating_sub(told);
                (more > 0).then(|| format!("{more} {reason}"))
            })
            .collect();
        self.evictions.clone_from(&stats.evictions);
        self.bytes = stats.evicted_bytes;
        if more.is_empty() {
            return Vec::new();
        }
        vec![format!(
            "evicted from {dir}: {}; {}",
            more.join(", "),
            ByteSize(bytes).display().iec()
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evictions_are_told_once_and_by_reason() {
        let mut told = Told::default();
        let mut stats = Stats::default();
        assert_eq!(told.lines(&stats, "/c"), Vec::<String>::new());
        stats.evictions.insert(Reason::Budget, 3);
        stats.evictions.insert(Reason::Expired, 1);
        stats.evicted_bytes = 2048;
        let line = told.lines(&stats, "/c").join("\n");
        assert!(
            line.contains("3 budget") && line.contains("1 expired"),
            "{line}"
        );
        assert!(line.contains("2.0 KiB"), "{line}");
        assert_eq!(told.lines(&stats, "/c"), Vec::<String>::new());
    }
}
