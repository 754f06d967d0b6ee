//! What the daemon counts, since it started.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use rustix::io::Errno;

use super::Vfs;
use super::attr::Kind;
use crate::evict::Reason;
use crate::stats::{Bucket, Histogram, Lookups};

macro_rules! operations {
    ($($operation:ident = $name:literal,)+) => {
        /// A message from the kernel, by what it asks for. What fuser answers by itself is not among them: it
        /// passes neither FUSE_INTERRUPT on nor what it does not know, to each of which it says ENOSYS; the kernel
        /// asks for either only once.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        #[allow(missing_docs, reason = "the names are the kernel's")]
        pub enum Operation {
            $($operation,)+
        }

        impl Operation {
            /// The names, in the order of the values.
            const NAMES: [&'static str; [$($name),+].len()] = [$($name),+];
        }
    };
}

operations! {
    Lookup = "lookup",
    Forget = "forget",
    Getattr = "getattr",
    Setattr = "setattr",
    Readlink = "readlink",
    Mknod = "mknod",
    Mkdir = "mkdir",
    Unlink = "unlink",
    Rmdir = "rmdir",
    Symlink = "symlink",
    Rename = "rename",
    Link = "link",
    Open = "open",
    Read = "read",
    Write = "write",
    Statfs = "statfs",
    Release = "release",
    Fsync = "fsync",
    Setxattr = "setxattr",
    Getxattr = "getxattr",
    Listxattr = "listxattr",
    Removexattr = "removexattr",
    Flush = "flush",
    Opendir = "opendir",
    Readdir = "readdir",
    Readdirplus = "readdirplus",
    Releasedir = "releasedir",
    Fsyncdir = "fsyncdir",
    Create = "create",
    Access = "access",
    Ioctl = "ioctl",
    Poll = "poll",
    Bmap = "bmap",
    Lseek = "lseek",
    Fallocate = "fallocate",
    CopyFileRange = "copy_file_range",
    Getlk = "getlk",
    Setlk = "setlk",
}

impl Operation {
    /// The name, in lower case.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// The upper bounds of the commit latencies' buckets, in microseconds.
const BOUNDS: [u64; 14] = [
    10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 1_000_000,
];

/// The counters. Each is exact; together they are not a snapshot of one moment.
#[derive(Debug)]
pub struct Counters {
    requests: [AtomicU64; Operation::NAMES.len()],
    errors: DashMap<Errno, u64>,
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) commits: AtomicU64,
    latency: [AtomicU64; BOUNDS.len() + 1],
    latency_sum: AtomicU64,
    evictions: [AtomicU64; Reason::ALL.len()],
    evicted_bytes: AtomicU64,
    unserved: AtomicU64,
    /// Beginnings and ends of sweeps, which take turns: odd while one is made.
    sweep_turns: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            // An array of that length has no default.
            requests: std::array::from_fn(|_| AtomicU64::new(0)),
            errors: DashMap::new(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            latency: Default::default(),
            latency_sum: AtomicU64::new(0),
            evictions: Default::default(),
            evicted_bytes: AtomicU64::new(0),
            unserved: AtomicU64::new(0),
            sweep_turns: AtomicU64::new(0),
        }
    }
}

pub(super) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counters {
    /// Counts a message.
    pub fn request(&self, operation: Operation) {
        bump(&self.requests[operation as usize]);
    }

    /// Counts a reply that is an error.
    pub fn error(&self, errno: Errno) {
        *self.errors.entry(errno).or_default() += 1;
    }

    pub(super) fn commit(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        bump(&self.commits);
        bump(&self.latency[BOUNDS.partition_point(|bound| *bound < took)]);
        self.latency_sum.fetch_add(took, Ordering::Relaxed);
    }

    /// So many things in the backing directory are not served, since a stranger could have written them.
    pub(super) fn not_served(&self, count: u64) {
        self.unserved.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn unserved(&self) -> u64 {
        read(&self.unserved)
    }

    pub(super) fn evicted(&self, reason: Reason, bytes: u64) {
        bump(&self.evictions[reason as usize]);
        self.evicted_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// To be called when a sweep begins and when it ends; there is only one at a time.
    pub(super) fn sweep_turn(&self) {
        bump(&self.sweep_turns);
    }

    /// Sweeps that have ended, and whether one is under way.
    pub(super) fn sweeps(&self) -> (u64, bool) {
        let turns = read(&self.sweep_turns);
        (turns / 2, turns % 2 == 1)
    }

    pub(super) fn lookups(&self) -> Lookups {
        Lookups {
            hits: read(&self.hits),
            misses: read(&self.misses),
        }
    }

    pub(super) fn commit_latency(&self) -> Histogram {
        let buckets = BOUNDS
            .iter()
            .zip(&self.latency)
            .map(|(bound, count)| Bucket {
                up_to_microseconds: *bound,
                count: read(count),
            });
        Histogram {
            buckets: buckets.collect(),
            beyond: read(&self.latency[BOUNDS.len()]),
            sum_microseconds: read(&self.latency_sum),
        }
    }

    /// By operation; those that never came are left out.
    pub(super) fn requests(&self) -> BTreeMap<String, u64> {
        let all = Operation::NAMES.iter().zip(&self.requests);
        all.map(|(name, count)| ((*name).to_owned(), read(count)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// By the errno's name, as `ENOENT`.
    pub(super) fn errors(&self) -> BTreeMap<String, u64> {
        self.errors
            .iter()
            .map(|entry| (errno_name(*entry.key()), *entry.value()))
            .collect()
    }

    pub(super) fn evictions(&self) -> BTreeMap<Reason, u64> {
        let all = Reason::ALL
            .iter()
            .map(|reason| (*reason, read(&self.evictions[*reason as usize])));
        all.filter(|(_, count)| *count > 0).collect()
    }

    pub(super) fn evicted_bytes(&self) -> u64 {
        read(&self.evicted_bytes)
    }
}

impl Vfs {
    /// Counts that `name` was looked up and not there. A temporary name is not an engine's question: the kernel
    /// looks it up by itself before it creates the file.
    pub(super) fn count_miss(&self, name: &OsStr) {
        if self.config.pattern.temporary_name(name).is_none() {
            bump(&self.counters.misses);
        }
    }

    /// To be called once for each rename that the kernel asks for: it has looked up the new name by itself just before
    /// (Linux, fs/fuse/dir.c, `fuse_dentry_revalidate` with LOOKUP_RENAME_TARGET), which was no engine's question.
    pub fn target_was_looked_up(&self, parent: u64, name: &OsStr) {
        if self.config.pattern.temporary_name(name).is_some() {
            return;
        }
        let Ok(parent) = self.directory(parent) else {
            return;
        };
        let kind = parent
            .folder()
            .children
            .read()
            .get(name)
            .map(|node| node.kind());
        let counter = match kind {
            None => &self.counters.misses,
            Some(Kind::File) => &self.counters.hits,
            Some(Kind::Directory | Kind::Symlink) => return,
        };
        // Never below zero: a rename can come without its look-up where names are not the kernel's to ask for.
        let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            count.checked_sub(1)
        });
    }
}

/// The name by which programmers know an errno. The `Debug` form of rustix is not a stable name, so the
/// ones that can occur here are listed; any other is shown by its number.
fn errno_name(errno: Errno) -> String {
    let name = match errno {
        Errno::PERM => "EPERM",
        Errno::NOENT => "ENOENT",
        Errno::IO => "EIO",
        Errno::ACCESS => "EACCES",
        Errno::EXIST => "EEXIST",
        Errno::XDEV => "EXDEV",
        Errno::NOTDIR => "ENOTDIR",
        Errno::ISDIR => "EISDIR",
        Errno::INVAL => "EINVAL",
        Errno::MFILE => "EMFILE",
        Errno::NFILE => "ENFILE",
        Errno::FBIG => "EFBIG",
        Errno::NOSPC => "ENOSPC",
        Errno::ROFS => "EROFS",
        Errno::NAMETOOLONG => "ENAMETOOLONG",
        Errno::NOTEMPTY => "ENOTEMPTY",
        Errno::LOOP => "ELOOP",
        Errno::NODATA => "ENODATA",
        Errno::OPNOTSUPP => "EOPNOTSUPP",
        Errno::STALE => "ESTALE",
        Errno::DQUOT => "EDQUOT",
        Errno::RANGE => "ERANGE",
        Errno::NOSYS => "ENOSYS",
        Errno::NOTTY => "ENOTTY",
        Errno::NOBUFS => "ENOBUFS",
        Errno::MLINK => "EMLINK",
        Errno::NOMEM => "ENOMEM",
        other => return format!("errno {}", other.raw_os_error()),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_its_name() {
        assert_eq!(Operation::Lookup.name(), "lookup");
        assert_eq!(Operation::Create.name(), "create");
        assert_eq!(Operation::CopyFileRange.name(), "copy_file_range");
    }

    #[test]
    fn a_latency_is_counted_in_the_bucket_that_holds_it() {
        let counters = Counters::default();
        for micros in [0, 10, 11, 1_000_000, 1_000_001] {
            counters.commit(Duration::from_micros(micros));
        }
        let histogram = counters.commit_latency();
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.buckets[0].count, 2);
        assert_eq!(histogram.buckets[1].count, 1);
        assert_eq!(histogram.buckets[13].count, 1);
        assert_eq!(histogram.beyond, 1);
        assert_eq!(histogram.sum_microseconds, 2_000_022);
    }
}
