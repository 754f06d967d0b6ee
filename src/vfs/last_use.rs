//! Noting on disk when each file was last used, so that a restarted daemon knows.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Vfs;
use super::attr::Kind;
use super::node::Node;
use super::notice::Notice;

/// How far the last use noted on disk may lag behind, so that noting it costs next to nothing.
pub(super) const USE_LAG: Duration = Duration::from_secs(600);

/// How long the end of the service may take to note it. What is not noted by then counts as used less lately.
const NOTING_AT_THE_END: Duration = Duration::from_millis(500);

impl Vfs {
    /// Notes the last use of each file in the backing directory (its access time), where what is noted
    /// lags behind by more than `lag`. A restarted daemon begins with that.
    pub fn note_use(&self, lag: Duration) {
        if self.config.read_only {
            return;
        }
        let first = self
            .met
            .get()
            .map_or(SystemTime::UNIX_EPOCH, |met| met.first);
        let mut due: Vec<(Arc<Node>, SystemTime)> = Vec::new();
        let listed_again = |node: &Node| {
            // The next listing is to reach the daemon, which then knows whose look-ups are no use.
            if node.standing.take_listing() {
                self.notices.send(Notice::Inode { ino: node.ino });
            }
        };
        listed_again(&self.root);
        self.walk(&mut |node| {
            if node.kind() == Kind::Directory {
                listed_again(node);
            }
            if node.kind() != Kind::File || !self.is_on_disk(node) || self.is_foreign(node) {
                return;
            }
            let used = self.time_of_day(node.standing.used());
            let noted = node.meta.lock().attr.atime;
            let behind = used.duration_since(noted.max(first)).unwrap_or_default();
            let ahead = noted.duration_since(used).unwrap_or_default();
            if behind > lag || ahead > USE_LAG {
                due.push((Arc::clone(node), used));
            }
        });
        let began = Instant::now();
        for (node, used) in due {
            if self.about.stop.has_begun() && began.elapsed() > NOTING_AT_THE_END {
                break;
            }
            let noted = self.on_disk(&node, |dir, name, known| {
                self.disk.set_times(dir, name, known, Some(used), None)
            });
            match noted {
                Ok(()) => node.meta.lock().attr.atime = used,
                Err(error) => {
                    log::debug!("the last use of inode {} is not noted: {error}", node.ino)
                }
            }
        }
        self.remember();
    }
}
