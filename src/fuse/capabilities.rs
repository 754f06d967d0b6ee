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

/// Names what is not to be requested though the kernel offers it, by commas: to try on one kernel what is done
/// on an older one, and to rule a feature out.
const WITHOUT: &str = "KIDAFS_WITHOUT";

const NO_OPEN: &str = "no_open_support";
const NO_OPENDIR: &str = "no_opendir_support";
const EXPLICIT_INVALIDATION: &str = "explicit_inval_data";
const KILL_PRIVILEGES: &str = "handle_killpriv_v2";
const READDIRPLUS: &str = "readdirplus";

impl Capabilities {
    /// Requests what is wanted of what `config` offers, but for what the variable `KIDAFS_WITHOUT` names.
    ///
    /// Not requested: ATOMIC_O_TRUNC (truncation then needs an open), WRITEBACK_CACHE (slower here: each close
    /// invalidates attributes), and what fuser 0.18 cannot parse or express (IO_URING, ALLOW_IDMAP, SUBMOUNTS, SETXATTR_EXT).
    pub fn negotiate(config: &mut KernelConfig) -> Self {
        let without = std::env::var(WITHOUT).unwrap_or_default();
        let wanted = |name: &str| !without.split(',').any(|not| not.trim() == name);
        let mut take =
            |name: &str, flags: InitFlags| wanted(name) && config.add_capabilities(flags).is_ok();
        let plus = InitFlags::FUSE_DO_READDIRPLUS.union(InitFlags::FUSE_READDIRPLUS_AUTO);
        let taken = Self {
            no_open: take(NO_OPEN, InitFlags::FUSE_NO_OPEN_SUPPORT),
            no_opendir: take(NO_OPENDIR, InitFlags::FUSE_NO_OPENDIR_SUPPORT),
            explicit_invalidation: take(EXPLICIT_INVALIDATION, InitFlags::FUSE_EXPLICIT_INVAL_DATA),
            kill_privileges: take(KILL_PRIVILEGES, InitFlags::FUSE_HANDLE_KILLPRIV_V2),
            readdirplus: take(READDIRPLUS, plus),
        };
        for common in [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_MAX_PAGES,
        ] {
            // What an old kernel lacks of these it does without being told.
            let _ = config.add_capabilities(common);
        }
        // Fails only for 0 and for more than fuser's buffer, which is 16 MiB.
        let _ = config.set_max_write(MAX_WRITE);
        taken
    }

    /// What was agreed to, by the names of libfuse's flags in lower case.
    pub fn names(&self) -> Vec<String> {
        let all = [
            (NO_OPEN, self.no_open),
            (NO_OPENDIR, self.no_opendir),
            (EXPLICIT_INVALIDATION, self.explicit_invalidation),
            (KILL_PRIVILEGES, self.kill_privileges),
            (READDIRPLUS, self.readdirplus),
        ];
        let taken = all.into_iter().filter(|(_, taken)| *taken);
        taken.map(|(name, _)| name.to_owned()).collect()
    }
}
