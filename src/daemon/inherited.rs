//! What a process gets from its starter without asking, and a daemon must not keep.
//!
//! A descriptor would hold a lock or a pipe of the starter's for as long as the mount lives; an
//! ignored signal, a limit or a variable would change what the daemon does, or tell others what the
//! starter knows. What only a service manager can give is left as it is: niceness, OOM score,
//! control group, processor affinity, namespaces.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::signal::SigSet;
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use signal_hook::consts::{SIGPIPE, SIGXFSZ};

/// The variables that a daemon keeps.
const KEPT: [&str; 18] = [
    "CREDENTIALS_DIRECTORY",
    "GLIBC_TUNABLES",
    "HOME",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LANG",
    "LANGUAGE",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LLVM_PROFILE_FILE",
    "NOTIFY_SOCKET",
    "PATH",
    "RUST_BACKTRACE",
    "RUST_LIB_BACKTRACE",
    "TZ",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "XDG_CONFIG_HOME",
];

/// Those whose names begin so are kept as well: the program's own, the allocator's, the locale's,
/// and libfaketime's, without which a preloaded clock would stand still.
const KEPT_PREFIXES: [&str; 5] = ["KIDAFS_", "MALLOC_", "LC_", "FAKETIME", "DONT_FAKE"];

/// Tells a process that it has been run anew already.
const SHED_VARIABLE: &str = "_KIDAFS_SHED";

/// The signals that the C library keeps for itself: two in glibc, three in musl.
pub(super) const RESERVED: std::ops::RangeInclusive<i32> =
    32..=if cfg!(target_env = "musl") { 34 } else { 33 };

/// Open files that root's daemon wants to be able to have, which is systemd's usual hard limit.
const MOST_FILES: u64 = 524_288;

/// Whether a daemon has a use for the variable.
pub(super) fn keeps_variable(name: &OsStr) -> bool {
    let name = name.as_bytes();
    KEPT.iter().any(|kept| kept.as_bytes() == name)
        || KEPT_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// This process's variables for a daemon that it starts.
pub(super) fn environment() -> BTreeMap<OsString, OsString> {
    std::env::vars_os()
        .filter(|(name, _)| keeps_variable(name))
        .collect()
}

/// Rids this process, a daemon or a supervisor, of the descriptors above standard error and of the
/// ignored signals that it was started with. They go by running the program anew in the same
/// process, which is done only if there are any.
///
/// To be called before anything is opened, and on the only thread.
///
/// # Errors
/// When the program cannot be run anew.
pub fn shed() -> io::Result<()> {
    let ignored = ignored_signals();
    let again = std::env::var_os(SHED_VARIABLE).is_some();
    if again || (ignored.is_empty() && !holds_descriptors()) {
        return Ok(());
    }
    close_fds::set_fds_cloexec(3, &[]);
    // A program that is run gets the signals that were handled as if nobody had touched them.
    for signal in ignored {
        let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
    let mut arguments = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    Err(command.args(arguments).env(SHED_VARIABLE, "1").exec())
}

/// Whether anything above standard error is open. The listing of them is itself, as one.
fn holds_descriptors() -> bool {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else {
        return true;
    };
    let numbers = open.flatten().filter_map(|entry| {
        let name = entry.file_name();
        name.to_str()?.parse::<u32>().ok()
    });
    numbers.filter(|number| *number > 2).count() > 1
}

/// The signals that this process ignores because its starter did: those above SIGPIPE's, which
/// Rust's runtime sets itself.
pub(super) fn ignored_signals() -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    (1..=64)
        .filter(|signal| mask >> (signal - 1) & 1 == 1)
        .filter(|signal| *signal != SIGPIPE && !RESERVED.contains(signal))
        // Registering one of these would panic.
        .filter(|signal| !signal_hook::consts::FORBIDDEN.contains(signal))
        .collect()
}

/// Lets every signal through again that the starter had blocked.
pub(super) fn unblock_signals() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Sets the limits that would end a daemon, or keep it from storing, to the most that it may have:
/// file size, processor time, open files. A privileged one may have more than its starter.
///
/// `alone`: the process was not started to be what it is by a service manager, which may have had
/// its reasons for a hard limit.
pub(super) fn raise_limits(alone: bool) {
    let privileged = alone && rustix::process::geteuid().is_root();
    for (resource, what, wanted) in [
        (Resource::Fsize, "file size", None),
        (Resource::Cpu, "processor time", None),
        (Resource::Nofile, "open files", Some(MOST_FILES)),
    ] {
        let now = rustix::process::getrlimit(resource);
        let wanted = match (wanted, now.maximum) {
            (Some(wanted), Some(maximum)) => Some(maximum.max(wanted)),
            (Some(_), None) | (None, _) => None,
        };
        let more = Rlimit {
            current: wanted,
            maximum: wanted,
        };
        if privileged && more != now && rustix::process::setrlimit(resource, more).is_ok() {
            continue;
        }
        let most = Rlimit {
            current: now.maximum,
            maximum: now.maximum,
        };
        if most != now
            && let Err(error) = rustix::process::setrlimit(resource, most)
        {
            log::warn!("cannot raise the limit of {what}: {error}");
        }
    }
    // Where the file size stays limited a write is to fail, and not to kill the daemon.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

/// What root's daemon does that needs a right of root's: unmounting and reading `/dev/fuse` of a mount,
/// and making in a directory of another user's what belongs to that user. Everything else is given up,
/// with what programs that it runs could gain.
///
/// To be called on the only thread: a thread's rights are its own.
///
/// # Errors
/// When the system refuses.
pub fn drop_rights() -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        // An ordinary user has none, and unmounts by a program that must be able to gain them.
        return Ok(());
    }
    let used = CapabilitySet::SYS_ADMIN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::CHOWN
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        // The thread that looks at sources becomes the owner of the directory with these.
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID;
    let now = rustix::thread::capabilities(None)?;
    let kept = now.permitted & used;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(rustix::thread::set_no_new_privs(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_keeps_the_variables_that_it_uses_and_no_others() {
        for name in ["PATH", "LC_ALL", "KIDAFS_LOG", "NOTIFY_SOCKET", "FAKETIME"] {
            assert!(keeps_variable(OsStr::new(name)), "{name}");
        }
        for name in [
            "SECRET_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "PATHS",
            "PWD",
            "OLDPWD",
            "",
        ] {
            assert!(!keeps_variable(OsStr::new(name)), "{name}");
        }
    }
}
