//! What the tests of a process's life share: a filesystem with next to nothing in it.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEntry, Request, Session, SessionACL,
};
use kidafs::daemon::mount::{self, MountOptions, Mounted};

const ROOT: u64 = 1;
const PRIVATE: u64 = 2;
const PID: u64 = 3;
const FILE: u64 = 4;

/// The name of its one ordinary file.
pub(crate) const FILE_NAME: &str = "entry";

/// Attributes never time out, as those of kidafs: a `stat` of a dead one succeeds.
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// A filesystem of one file, `entry`, and of `.kidafs/pid`.
#[derive(Debug)]
pub(crate) struct Nearly {
    pid: String,
}

impl Nearly {
    pub(crate) fn new() -> Self {
        Self {
            pid: format!("{}\n", std::process::id()),
        }
    }

    fn attributes(&self, inode: u64) -> FileAttr {
        let directory = matches!(inode, ROOT | PRIVATE);
        FileAttr {
            ino: INodeNo(inode),
            size: if inode == PID {
                self.pid.len() as u64
            } else {
                0
            },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if directory {
                FileType::Directory
            } else {
                FileType::RegularFile
            },
            perm: if directory { 0o755 } else { 0o644 },
            nlink: 1,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }
}

impl Filesystem for Nearly {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let inode = match (u64::from(parent), name.to_str()) {
            (ROOT, Some(".kidafs")) => PRIVATE,
            (ROOT, Some(FILE_NAME)) => FILE,
            (PRIVATE, Some("pid")) => PID,
            _ => return reply.error(Errno::ENOENT),
        };
        reply.entry(&FOREVER, &self.attributes(inode), Generation(0));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(u64::from(ino)));
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        _size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let content = if u64::from(ino) == PID {
            self.pid.as_bytes()
        } else {
            b""
        };
        let from = usize::try_from(offset).unwrap().min(content.len());
        reply.data(&content[from..]);
    }
}

/// A session on a descriptor that [`mount::mount`] returned.
pub(crate) fn session(device: OwnedFd) -> io::Result<Session<Nearly>> {
    Session::from_fd(Nearly::new(), device, SessionACL::Owner, Config::default())
}

/// A mount served by a thread of the test itself.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) mounted: Mounted,
    pub(crate) session: JoinHandle<io::Result<()>>,
}

/// Mounts over `dir` and serves it.
pub(crate) fn serve(dir: &Path, options: &MountOptions) -> Served {
    let (device, mounted) = mount::mount(dir, options).unwrap();
    let session = session(device).unwrap();
    let session = std::thread::spawn(move || session.run());
    Served { mounted, session }
}

/// A directory for mounts; its path is free of symbolic links.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(folder.path().canonicalize().unwrap(), folder.path());
    folder
}

/// Whether `dir` is the root of a mount: its device is not its parent's.
pub(crate) fn is_mount_root(dir: &Path) -> bool {
    let device = |path: &Path| path.metadata().unwrap().dev();
    device(dir) != device(dir.parent().unwrap())
}
