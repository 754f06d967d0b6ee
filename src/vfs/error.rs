//! Why an operation failed: an errno for the caller, a sentence for the log.

use rustix::io::Errno;

/// What an operation returns.
pub type Result<T> = std::result::Result<T, Error>;

/// An errno with, where the errno alone does not say enough, a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} ({errno})")]
pub struct Error {
    /// What the calling program sees.
    pub errno: Errno,
    /// What happened.
    pub what: &'static str,
}

impl Error {
    /// An error of kidafs's own rules.
    pub const fn new(errno: Errno, what: &'static str) -> Self {
        Self { errno, what }
    }

    /// No such name. Not worth a sentence: it is how a cache says 'miss'.
    pub const NO_ENTRY: Self = Self::new(Errno::NOENT, "no such file or directory");
    /// An inode number that the kernel should not know any more.
    pub const STALE: Self = Self::new(Errno::STALE, "no such inode");
    /// A directory operation on something else.
    pub const NOT_A_DIRECTORY: Self = Self::new(Errno::NOTDIR, "not a directory");
    /// A file operation on a directory.
    pub const IS_A_DIRECTORY: Self = Self::new(Errno::ISDIR, "is a directory");
    /// The name is taken.
    pub const EXISTS: Self = Self::new(Errno::EXIST, "the name exists");
    /// The directory has entries.
    pub const NOT_EMPTY: Self = Self::new(Errno::NOTEMPTY, "the directory is not empty");
    /// What a cache directory does not hold, refused as FAT refuses it.
    pub const UNSUPPORTED_KIND: Self = Self::new(
        Errno::PERM,
        "hard links, device nodes, fifos and sockets are not supported",
    );
    /// The hidden folder is the daemon's.
    pub const HIDDEN: Self = Self::new(Errno::PERM, "the .kidafs folder is read-only");
    /// A component longer than the backing filesystem takes.
    pub const NAME_TOO_LONG: Self =
        Self::new(Errno::NAMETOOLONG, "the name is longer than 255 bytes");
    /// A file larger than `--max-entry`.
    pub const TOO_LARGE: Self = Self::new(Errno::FBIG, "the file would exceed --max-entry");
    /// More uncommitted content than `--staging`.
    pub const STAGING_FULL: Self =
        Self::new(Errno::NOSPC, "uncommitted content would exceed --staging");
    /// No entry can be evicted that would make room.
    pub const NO_ROOM: Self = Self::new(
        Errno::NOSPC,
        "the file does not fit --max-size and --max-entries",
    );
    /// A mount that serves without writes.
    pub const READ_ONLY: Self = Self::new(Errno::ROFS, "mounted read-only");
    /// Content that could not be kept readable when its name went.
    pub const LOST: Self = Self::new(
        Errno::IO,
        "the file was replaced or evicted and could not be kept readable",
    );
    /// Content that does not match its digest.
    pub const CORRUPT: Self = Self::new(Errno::IO, "the content does not match its digest");
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::new(errno, "the backing directory refused")
    }
}
