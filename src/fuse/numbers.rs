//! What the adapter alone knows about a daemon, for its statistics.

use std::sync::{Arc, OnceLock};

use super::capabilities::Capabilities;
use crate::stats::Stats;
use crate::vfs::Supplement;
use crate::wakeup::Bursts;

/// The kernel's side of the statistics.
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) capabilities: Arc<OnceLock<Capabilities>>,
    pub(super) bursts: Arc<Bursts>,
}

impl Supplement for Numbers {
    fn add_to(&self, stats: &mut Stats) {
        let agreed = self.capabilities.get();
        stats.kernel = agreed.map(Capabilities::names).unwrap_or_default();
        stats.poll_seconds = self.bursts.polled_seconds();
        stats.latency_held_seconds = self.bursts.held_seconds();
    }
}
