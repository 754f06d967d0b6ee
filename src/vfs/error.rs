//! Why an operation failed: an errno for the caller, a sentence for the log.

use rustix::io::Errno;

/// What an operation returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation failed. What the calling program sees is [`Error::errno`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such name. Not worth a sentence: it is how a cache says 'miss'.
    #[error("no such file or directory")]
    NoEntry,
    /// An inode number that the kernel should not know any more.
    #[error("no such inode")]
    Stale,
    /// A directory operation on something else.
    #[error("not a directory")]
    NotADirectory,
    /// A file operation on a directory.
    #[error("is a directory")]
    IsADirectory,
    /// The name is taken.
    #[error("the name exists")]
    Exists,
    /// The directory has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// A directory would become its own descendant.
    #[error("a directory cannot be moved into itself")]
    IntoItself,
    /// Content or a link's target of what has none.
    #[error("the inode is of another kind")]
    WrongKind,
    /// What a cache directory does not hold, refused as FAT refuses it.
    #[error("hard links, device nodes, fifos and sockets are not supported")]
    UnsupportedKind,
    /// The hidden folder is the daemon's.
    #[error("the .kidafs folder is read-only")]
    Hidden,
    /// A component longer than the backing filesystem takes.
    #[error("the name is longer than 255 bytes")]
    NameTooLong,
    /// A file larger than `--max-entry`.
    #[error("the file would exceed --max-entry")]
    TooLarge,
    /// More uncommitted content than `--staging`.
    #[error("uncommitted content would exceed --staging")]
    StagingFull,
    /// More files with uncommitted content than the staging area takes.
    #[error("too many files have uncommitted content")]
    TooManyStaged,
    /// More folders and links than an inode budget takes.
    #[error("too many directories and symbolic links")]
    TooManyInodes,
    /// No entry can be evicted that would make room.
    #[error("the file does not fit --max-size and --max-entries")]
    NoRoom,
    /// A mount that serves without writes.
    #[error("mounted read-only")]
    ReadOnly,
    /// Content that could not be kept readable when its name went.
    #[error("the file was replaced or evicted and could not be kept readable")]
    Lost,
    /// The service ends before this was done.
    #[error("the end of the service has begun")]
    Ended,
    /// Content that does not match its digest.
    #[error("the content does not match its digest")]
    Corrupt,
    /// Content without a right seal, where nothing is served without one.
    #[error("the file has no right seal")]
    Unsealed,
    /// A file that another user has put in the place of one that was served.
    #[error("another user's file has taken its place")]
    Stranger,
    /// As [`Error::Corrupt`], of a file that is nobody's entry: it stays where it is, and is not served.
    #[error("the content does not match its digest, and the file is no cache entry")]
    Damaged,
    /// An owner or a group that the daemon may not give to a file.
    #[error("the daemon may not give a file to this owner or group ({0})")]
    Owner(Errno),
    /// No extended attribute of this name.
    #[error("no such extended attribute")]
    NoAttribute,
    /// An extended attribute outside `user.`.
    #[error("only user extended attributes are supported")]
    UnsupportedAttribute,
    /// More extended attributes than an uncommitted file may have.
    #[error("too many extended attributes")]
    TooManyAttributes,
    /// The caller asked not to wait, and the disk would have to be waited for.
    #[error("the disk would have to be waited for")]
    WouldWait,
    /// The backing filesystem refused.
    #[error("the backing directory refused ({0})")]
    Disk(Errno),
}

impl Error {
    /// What the calling program sees.
    pub fn errno(self) -> Errno {
        match self {
            Self::NoEntry => Errno::NOENT,
            Self::Stale => Errno::STALE,
            Self::NotADirectory => Errno::NOTDIR,
            Self::IsADirectory => Errno::ISDIR,
            Self::Exists => Errno::EXIST,
            Self::NotEmpty => Errno::NOTEMPTY,
            Self::IntoItself | Self::WrongKind => Errno::INVAL,
            Self::UnsupportedKind | Self::Hidden => Errno::PERM,
            Self::NameTooLong => Errno::NAMETOOLONG,
            Self::TooLarge => Errno::FBIG,
            Self::StagingFull
            | Self::TooManyStaged
            | Self::TooManyInodes
            | Self::NoRoom
            | Self::TooManyAttributes => Errno::NOSPC,
            Self::ReadOnly => Errno::ROFS,
            Self::Lost | Self::Corrupt | Self::Damaged | Self::Unsealed | Self::Stranger => {
                Errno::IO
            }
            Self::NoAttribute => Errno::NODATA,
            Self::UnsupportedAttribute => Errno::OPNOTSUPP,
            Self::WouldWait => Errno::AGAIN,
            Self::Ended => Errno::INTR,
            Self::Owner(errno) | Self::Disk(errno) => errno,
        }
    }
}

impl Error {
    /// Whether a file is not to be served at all.
    pub(super) fn is_unfit(self) -> bool {
        matches!(self, Self::Corrupt | Self::Unsealed | Self::Stranger)
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Disk(errno)
    }
}
