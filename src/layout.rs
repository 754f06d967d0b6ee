//! The private folder: what kidafs keeps in a backing directory, and what a mount shows in its place.
//!
//! One name for each thing in it, for the daemon and for the commands that read it.

/// The private folder in the root of a backing directory; on the mount, the hidden folder of generated files.
pub const PRIVATE_DIR: &str = ".kidafs";

/// In the backing directory: the file that a daemon holds locked while it serves the directory.
pub const LOCK: &str = "lock";

/// In the backing directory: files that have no name yet, where the filesystem lacks `O_TMPFILE`.
pub const DRAFTS_DIR: &str = "tmp";

/// In the backing directory: files whose content is wrong.
pub const QUARANTINE_DIR: &str = "quarantine";

/// An extended attribute of a backing directory that was served: see `vfs::met`.
pub const MET_XATTR: &str = "user.kidafs.met";

/// On the mount: the folder in which each file of the mount opens by its inode number, which does not count as
/// its use. Only the owner of the mount's root may search it.
pub const BY_INODE: &str = "by-inode";

/// On the mount: the options in force, with their origins, as JSON.
pub const CONFIG_JSON: &str = "config.json";

/// On the mount: a line of JSON for each file.
pub const ENTRIES_JSONL: &str = "entries.jsonl";

/// On the mount: the metrics, in Prometheus' text format.
pub const METRICS: &str = "metrics";

/// On the mount: a line of JSON for each file that a sweep would remove now, with the reason.
pub const PLAN_JSONL: &str = "plan.jsonl";

/// On the mount: the daemon's process number, in its own process namespace.
pub const PID: &str = "pid";

/// State and counters of the process that carries the cache to and from a remote, as JSON.
pub const REMOTE_JSON: &str = "remote.json";

/// On the mount: state and counters, as JSON.
pub const STATS_JSON: &str = "stats.json";

/// On the mount: a file that is not listed. When root or the mount's owner sets its times, the daemon sweeps.
pub const SWEEP: &str = "sweep";
