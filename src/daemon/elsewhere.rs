//! Where else a mount is: its daemon goes on for as long as it is mounted anywhere.
//!
//! A mount namespace that is made while a mount is there (a container, `unshare -m`, a systemd service with
//! `PrivateTmp=`) has a copy of it, which an unmount outside leaves alone unless it is shared.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use rustix::process::Pid;

use super::mountinfo::{self, Mount};

/// A further place of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// Where it is, as that namespace's processes see it.
    pub mount_point: PathBuf,
    /// A process in that namespace, with its name; `None`: it is this process's own.
    pub process: Option<(Pid, String)>,
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mount_point = self.mount_point.display();
        match &self.process {
            None => write!(
                f,
                "it is mounted on {mount_point} too: unmount that as well"
            ),
            Some((pid, name)) => write!(
                f,
                "process {pid} ({name}) has a copy of the mount in a mount namespace of its own: end that process, \
                 or run `nsenter -t {pid} -m umount {mount_point}`"
            ),
        }
    }
}

/// Looks for a mount that `is_meant` in this namespace and in those of all processes that this user may look at.
/// Takes some 10 microseconds a process.
pub fn find(is_meant: impl Fn(&Mount) -> bool) -> Option<Elsewhere> {
    let own = mountinfo::read().unwrap_or_default();
    if let Some(mount) = own.into_iter().find(&is_meant) {
        return Some(Elsewhere {
            mount_point: mount.mount_point,
            process: None,
        });
    }
    let mut seen: HashSet<OsString> = HashSet::new();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let number = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = number.and_then(Pid::from_raw) else {
            continue;
        };
        // Of a process whose namespace may not be told, the table may still be read.
        if let Ok(namespace) = std::fs::read_link(process.path().join("ns/mnt"))
            && !seen.insert(namespace.into())
        {
            continue;
        }
        let table = std::fs::read(process.path().join("mountinfo")).unwrap_or_default();
        if let Some(mount) = mountinfo::parse(&table).into_iter().find(&is_meant) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(Elsewhere {
                mount_point: mount.mount_point,
                process: Some((pid, name.trim_end().to_owned())),
            });
        }
    }
    None
}
