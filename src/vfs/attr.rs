//! Attributes, and the requests to change them.

use std::time::SystemTime;

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// An inode's attributes, as stat(2) reports them. Times are to the nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Size in bytes; of a symbolic link, the length of its target.
    pub size: u64,
    /// Permission bits, with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last use.
    pub atime: SystemTime,
    /// Last change of the content.
    pub mtime: SystemTime,
    /// Last change of the attributes.
    pub ctime: SystemTime,
}

/// Bytes in the unit of `st_blocks`, and in a block of the page cache.
const SECTOR: u64 = 512;
/// What content is rounded up to when space is counted, as on the usual backing filesystems.
pub const BLOCK: u64 = 4096;

impl Attr {
    /// Space in units of 512 bytes, as `st_blocks`: whole blocks of 4 KiB.
    pub fn blocks(&self) -> u64 {
        self.size.div_ceil(BLOCK) * (BLOCK / SECTOR)
    }
}

/// An inode with its number and attributes, as a reply needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The inode number.
    pub ino: u64,
    /// What it is.
    pub kind: Kind,
    /// Links: 1, or 2 for a directory; 0 once it has no name.
    pub links: u32,
    /// Made up by the daemon, in the hidden folder: its name must be looked up anew each time.
    pub generated: bool,
    /// Whether a look-up would find it without reading its content first, to check it.
    pub checked: bool,
    /// Its attributes.
    pub attr: Attr,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// The clock's time.
    Now,
    /// This time.
    To(SystemTime),
}

/// The attributes to change; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size: cuts off, or fills up with zeros.
    pub size: Option<u64>,
    /// Last use.
    pub atime: Option<SetTime>,
    /// Last change of the content.
    pub mtime: Option<SetTime>,
}

/// Who asks: the credentials that a new inode gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}
