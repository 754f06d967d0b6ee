//! What the tests of a process's life share: a filesystem with next to nothing in it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEntry, Request, Session, SessionACL,
};
use kidafs::daemon::mount::{self, MountOptions, Mounted};
use kidafs::daemon::mountinfo;
use kidafs::daemon::unmount::{UnmountError, Unmounted, unmount};

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

/// Unmounts. A process that a test beside this one is just starting holds this process's descriptors
/// until it runs its program, and with one of the mount makes it busy.
pub(crate) fn unmount_patiently(dir: &Path, limit: Duration) -> Unmounted {
    let deadline = Instant::now() + limit;
    loop {
        match unmount(dir, false, limit) {
            Err(UnmountError::Busy { .. }) if Instant::now() < deadline => {
                std::thread::yield_now();
            }
            result => return result.unwrap(),
        }
    }
}

/// A directory for mounts. Dropped, it detaches what a failed test left mounted in it; a daemon
/// behind that then ends by itself.
#[derive(Debug)]
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for mount in mountinfo::read().unwrap().iter().rev() {
            if !mount.mount_point.starts_with(self.path()) {
                continue;
            }
            if rustix::process::geteuid().is_root() {
                let lazily = rustix::mount::UnmountFlags::DETACH;
                let _ = rustix::mount::unmount(&mount.mount_point, lazily);
            } else {
                let mut command = std::process::Command::new("fusermount3");
                let _ = command.args(["-u", "-z"]).arg(&mount.mount_point).status();
            }
        }
    }
}

/// A directory for mounts; its path is free of symbolic links.
pub(crate) fn folder() -> Folder {
    let folder = Folder(tempfile::tempdir().unwrap());
    assert_eq!(folder.path().canonicalize().unwrap(), folder.path());
    folder
}

/// Whether `dir`, a path free of symbolic links, is the root of a mount, dead or alive.
pub(crate) fn is_mount_root(dir: &Path) -> bool {
    mountinfo::top(&mountinfo::read().unwrap(), dir).is_some()
}

/// What a test and the daemon it started, a process of its own, tell each other. The daemon is this
/// test program run once more, with a folder as a further argument: in it are the mount point and
/// a socket.
pub(crate) mod process {
    use std::ffi::OsString;
    use std::fs::File;
    use std::io;
    use std::os::unix::net::UnixDatagram;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use kidafs::daemon::backing::{Backing, Sharing};
    use kidafs::daemon::mount::{self, MountOptions};
    use kidafs::daemon::serve::{self, Events, Service};
    use kidafs::daemon::signals::{HangUp, Signals};
    use kidafs::daemon::start::{Role, Start};
    use kidafs::daemon::supervise;
    use kidafs::stop::Stop;

    /// The test function that becomes the daemon; it is in the root of the test program.
    const FUNCTION: &str = "daemon_process";

    const SOCKET: &str = "socket";

    /// The socket of a daemon that waits for a word.
    const WAITING: &str = "waiting";

    /// The argument by which the daemon is supervised.
    const SUPERVISED: &str = "supervised";

    /// How the daemon's session goes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Session {
        Runs,
        Fails,
        Panics,
        /// It runs, but at the end not everything can be written.
        LosesSomething,
        /// It runs, but before its mount answers the daemon waits for a word ([`let_it_answer`]).
        Waits,
    }

    /// The arguments that make this program run the daemon.
    pub(crate) fn arguments(folder: &Path, session: Session) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = ["-q", "--nocapture", "--exact", FUNCTION]
            .map(OsString::from)
            .into();
        arguments.push(folder.into());
        arguments.push(format!("{session:?}").into());
        arguments
    }

    /// The same for a daemon that is supervised.
    pub(crate) fn supervised_arguments(folder: &Path, session: Session) -> Vec<OsString> {
        let mut arguments = arguments(folder, session);
        arguments.push(SUPERVISED.into());
        arguments
    }

    /// Where a supervised daemon in the background, and its supervisor, log to.
    pub(crate) fn log_file(folder: &Path) -> PathBuf {
        folder.join("log")
    }

    /// The mount point in a test's folder.
    pub(crate) fn mount_point(folder: &Path) -> PathBuf {
        folder.join("dir")
    }

    /// The test's end of the socket.
    pub(crate) fn listen(folder: &Path) -> UnixDatagram {
        std::fs::create_dir(mount_point(folder)).unwrap();
        let socket = UnixDatagram::bind(folder.join(SOCKET)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        socket
    }

    /// What the daemon says next.
    pub(crate) fn hear(socket: &UnixDatagram) -> String {
        let mut said = [0; 100];
        let length = socket.recv(&mut said).unwrap();
        String::from_utf8(said[..length].to_vec()).unwrap()
    }

    /// Lets a daemon go on that [`Session::Waits`].
    pub(crate) fn let_it_answer(folder: &Path) {
        let socket = UnixDatagram::unbound().unwrap();
        socket.send_to(b"go on", folder.join(WAITING)).unwrap();
    }

    struct Telling {
        socket: UnixDatagram,
        flushes: bool,
    }

    impl Telling {
        fn tell(&self, what: &str) -> io::Result<()> {
            // A test that is not interested has closed its end.
            self.socket.send(what.as_bytes()).map(drop)
        }
    }

    impl Service for Telling {
        fn sweep(&self) {
            self.tell("sweep").unwrap();
        }

        fn flush(&self) -> io::Result<()> {
            self.tell("flush")?;
            if self.flushes {
                Ok(())
            } else {
                Err(io::Error::other("the disk is full"))
            }
        }
    }

    /// Is the daemon, if this process was started to be one; else returns.
    pub(crate) fn be_daemon() {
        let arguments: Vec<_> = std::env::args_os().collect();
        let Some(at) = arguments.iter().position(|argument| argument == FUNCTION) else {
            return;
        };
        let (Some(folder), Some(session)) = (arguments.get(at + 1), arguments.get(at + 2)) else {
            return;
        };
        let role = Role::of_this_process();
        // As the program has it: a daemon's log with times, a command's as its other messages.
        env_logger::builder()
            .filter_level(log::LevelFilter::Warn)
            // It names each operation that this filesystem does without.
            .filter_module("fuser", log::LevelFilter::Error)
            .init();
        let supervised = arguments.get(at + 3).is_some_and(|word| word == SUPERVISED);
        let result = if supervised && !role.is_supervised() {
            let log = open_log(Path::new(folder));
            let dir = mount_point(Path::new(folder));
            supervise::supervise(&dir, &arguments[1..], Some(log), None).map_err(Into::into)
        } else {
            daemon(Path::new(folder), session.to_str().unwrap())
        };
        let status = match result {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("kidafs: {error}");
                1
            }
        };
        std::process::exit(status);
    }

    fn open_log(folder: &Path) -> File {
        File::options()
            .append(true)
            .create(true)
            .open(log_file(folder))
            .unwrap()
    }

    fn daemon(folder: &Path, how: &str) -> Result<(), Box<dyn std::error::Error>> {
        let how = how.to_owned();
        let socket = UnixDatagram::unbound()?;
        socket.connect(folder.join(SOCKET))?;
        let dir = mount::clear(&mount_point(folder))?.ok_or("no directory")?;
        let _backing = Backing::open(&dir, Sharing::default())?;
        let start = Start::begin()?;
        let signals = Signals::install(HangUp::Reopens)?;
        let (device, mounted) = mount::mount(&dir, &MountOptions::default())?;
        let session = super::session(device)?;
        let session_is = how.clone();
        let run = move || match session_is.as_str() {
            "Fails" => Err(io::Error::other("it was told to fail")),
            "Panics" => panic!("it was told to panic"),
            _ => session.run(),
        };
        let telling = Telling {
            socket,
            flushes: how != "LosesSomething",
        };
        if how == "Waits" {
            let word = UnixDatagram::bind(folder.join(WAITING))?;
            telling.tell("waiting")?;
            word.recv(&mut [0; 8])?;
        }
        let log = start.role().is_supervised().then(|| open_log(folder));
        let events = Events::listen(signals, Stop::default())?;
        let ended = serve::serve(mounted, start, log, events, run, &telling)?;
        telling.tell(&format!("{ended:?}"))?;
        Ok(())
    }
}
