//! Between the core's types and fuser's.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

use crate::vfs::{BLOCK, Error, Kind, SetTime, Stat};

pub(super) fn errno(error: &Error) -> fuser::Errno {
    fuser::Errno::from_i32(error.errno().raw_os_error())
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
    }
}

pub(super) fn file_attr(stat: &Stat) -> FileAttr {
    let attr = &stat.attr;
    FileAttr {
        ino: INodeNo(stat.ino),
        size: attr.size,
        blocks: attr.blocks(),
        atime: attr.atime,
        mtime: attr.mtime,
        ctime: attr.ctime,
        crtime: attr.ctime,
        kind: file_type(stat.kind),
        // Masked to 12 bits, so that it fits.
        perm: (attr.mode & 0o7777) as u16,
        nlink: stat.links,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: BLOCK as u32,
        flags: 0,
    }
}

/// The attributes of 'no such entry': inode 0 tells the kernel to remember the miss.
pub(super) fn missing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK as u32,
        flags: 0,
    }
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::To(repaired(time)),
    }
}

/// A time before 1970 arrives as whole seconds (negative) and nanoseconds to add; fuser 0.18 subtracts both.
fn repaired(time: SystemTime) -> SystemTime {
    let Err(before) = time.duration_since(SystemTime::UNIX_EPOCH) else {
        return time;
    };
    let before = before.duration();
    SystemTime::UNIX_EPOCH
        .checked_sub(Duration::from_secs(before.as_secs()))
        .and_then(|whole| whole.checked_add(Duration::from_nanos(before.subsec_nanos().into())))
        .unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_1970_is_what_the_kernel_sent() {
        // -2 s and 800 ms arrive; 1.2 s before the epoch are meant.
        let arrived = SystemTime::UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(
            repaired(arrived),
            SystemTime::UNIX_EPOCH - Duration::from_millis(1_200)
        );
        let later = SystemTime::UNIX_EPOCH + Duration::from_millis(1_200);
        assert_eq!(repaired(later), later);
    }
}
