//! What the kernel offers, and what is taken of it.

use fuser::{InitFlags, KernelConfig};

/// The largest write in one message, and with it the largest read: 1 MiB, the kernel's own usual limit
/// (`max_pages_limit`, 256 pages).
const MAX_WRITE: u32 = 1 << 20;

/// What this kernel agreed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// open(2) and close(2) need no message (Linux 3.16).
    pub no_open: bool,
    /// Nor do opendir and closedir (Linux 5.1).
    pub no_opendir: bool,
    /// Cached content goes only when it is said to (Linux 5.2).
    pub explicit_invalidation: bool,
    /// Set-id bits and file capabilities are ours to drop, so that a write need not ask for the latter
    /// first (Linux 5.11).
    pub kill_privileges: bool,
    /// Listings bring attributes with them (Linux 3.9).
    pub readdirplus: bool,
}

impl Capabilities {
    /// Requests what is wanted of what `config` offers.
    ///
    /// Not requested: ATOMIC_O_TRUNC (truncation then needs an open), WRITEBACK_CACHE (slower here: each close
    /// invalidates attributes), and what fuser 0.18 cannot parse or express (IO_URING, ALLOW_IDMAP, SUBMOUNTS, SETXATTR_EXT).
    pub fn negotiate(config: &mut KernelConfig) -> Self {
        let mut take = |wanted: InitFlags| config.add_capabilities(wanted).is_ok();
        let taken = Self {
            no_open: take(InitFlags::FUSE_NO_OPEN_SUPPORT),
            no_opendir: take(InitFlags::FUSE_NO_OPENDIR_SUPPORT),
            explicit_invalidation: take(InitFlags::FUSE_EXPLICIT_INVAL_DATA),
            kill_privileges: take(InitFlags::FUSE_HANDLE_KILLPRIV_V2),
            readdirplus: take(InitFlags::FUSE_DO_READDIRPLUS)
                && take(InitFlags::FUSE_READDIRPLUS_AUTO),
        };
        take(InitFlags::FUSE_PARALLEL_DIROPS);
        take(InitFlags::FUSE_CACHE_SYMLINKS);
        take(InitFlags::FUSE_MAX_PAGES);
        // Fails only for 0 and for more than fuser's buffer, which is 16 MiB.
        let _ = config.set_max_write(MAX_WRITE);
        taken
    }

    /// What was agreed to, by the names of libfuse's flags in lower case.
    pub fn names(&self) -> Vec<String> {
        let all = [
            ("no_open_support", self.no_open),
            ("no_opendir_support", self.no_opendir),
            ("explicit_inval_data", self.explicit_invalidation),
            ("handle_killpriv_v2", self.kill_privileges),
            ("readdirplus", self.readdirplus),
        ];
        let taken = all.into_iter().filter(|(_, taken)| *taken);
        taken.map(|(name, _)| name.to_owned()).collect()
    }
}
