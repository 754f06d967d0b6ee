//! What is found in a backing directory, and the system's forms of modes and times.

use std::ffi::OsString;
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, Stat, Timespec, Timestamps};

use super::directory::Id;

/// What a name in a backing directory stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, with its target.
    Symlink(OsString),
    /// Anything else; not served.
    Other,
}

/// One name found in a backing directory. Times are to the nanosecond.
#[derive(Debug, Clone)]
pub struct Found {
    /// The name.
    pub name: OsString,
    /// What it stands for.
    pub kind: FoundKind,
    /// Size in bytes.
    pub size: u64,
    /// Bytes that it takes on disk.
    pub allocated: u64,
    /// Permission bits, with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last use, as far as the backing filesystem has it.
    pub atime: SystemTime,
    /// Last change of the content.
    pub mtime: SystemTime,
    /// Last change of the attributes.
    pub ctime: SystemTime,
    /// What it is, whatever its name. A directory on another device is a foreign mount.
    pub id: Id,
}

/// The umask-free mode bits of a `st_mode`.
const PERMISSIONS: u32 = 0o7777;

/// The mode of a file on disk. Without set-id bits: the backing directory may be on a filesystem that heeds them,
/// which the mount never does.
pub(super) fn file_mode(bits: u32) -> Mode {
    Mode::from_raw_mode(bits & 0o1777)
}

/// The mode of a directory on disk: set-group-id means there that what is made in it has its group.
pub(super) fn directory_mode(bits: u32) -> Mode {
    Mode::from_raw_mode(bits & 0o3777)
}

/// The time of a file's last change.
pub(super) fn mtime(stat: &Stat) -> SystemTime {
    time(stat.st_mtime, stat.st_mtime_nsec)
}

fn time(secs: i64, nanos: u64) -> SystemTime {
    let nanos = u32::try_from(nanos).unwrap_or(0).min(999_999_999);
    let whole = Duration::from_secs(secs.unsigned_abs());
    let base = if secs < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    base.and_then(|base| base.checked_add(Duration::new(0, nanos)))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

fn timespec(time: SystemTime) -> Timespec {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => Timespec {
            tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: after.subsec_nanos().into(),
        },
        Err(before) => {
            let before = before.duration();
            let secs = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => Timespec {
                    tv_sec: -secs,
                    tv_nsec: 0,
                },
                nanos => Timespec {
                    tv_sec: -secs - 1,
                    tv_nsec: (1_000_000_000 - nanos).into(),
                },
            }
        }
    }
}

pub(super) fn timestamps(atime: Option<SystemTime>, mtime: Option<SystemTime>) -> Timestamps {
    let or_omit = |time: Option<SystemTime>| {
        time.map_or(
            Timespec {
                tv_sec: 0,
                tv_nsec: rustix::fs::UTIME_OMIT,
            },
            timespec,
        )
    };
    Timestamps {
        last_access: or_omit(atime),
        last_modification: or_omit(mtime),
    }
}

pub(super) fn found(name: OsString, kind: FoundKind, stat: &Stat) -> Found {
    Found {
        name,
        kind,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & PERMISSIONS,
        uid: stat.st_uid,
        gid: stat.st_gid,
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        id: Id::of(stat),
        allocated: u64::try_from(stat.st_blocks)
            .unwrap_or(0)
            .saturating_mul(512),
    }
}
