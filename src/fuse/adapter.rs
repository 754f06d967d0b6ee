//! The callbacks.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};

use super::capabilities::Capabilities;
use super::convert::{errno, file_attr, file_type, missing, set_time};
use super::pool::Pool;
use crate::vfs::{
    BLOCK, Caller, Changes, Error, Kind, NAME_MAX, Operation, RenameMode, Result, Stat, Vfs,
};

/// Inode numbers are never used again.
const GENERATION: Generation = Generation(0);

/// As good as for ever: attributes change through this mount alone, or are invalidated by a notice.
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// Requests that may wait for the disk at the same time.
const FLUSHES: usize = 4;

/// The files of one kernel mount, as fuser calls them.
#[derive(Debug)]
pub struct Adapter {
    vfs: Arc<Vfs>,
    capabilities: Arc<OnceLock<Capabilities>>,
    flushes: Pool,
}

impl Adapter {
    /// Serves `vfs`.
    ///
    /// # Errors
    /// That of the system, if it has no room for a thread.
    pub fn new(vfs: Arc<Vfs>) -> std::io::Result<Self> {
        Ok(Self {
            vfs,
            capabilities: Arc::default(),
            flushes: Pool::start(FLUSHES)?,
        })
    }

    /// What the kernel agreed to; set once the mount answers.
    pub fn capabilities(&self) -> Arc<OnceLock<Capabilities>> {
        Arc::clone(&self.capabilities)
    }

    fn offers(&self, what: impl Fn(&Capabilities) -> bool) -> bool {
        self.capabilities.get().is_some_and(what)
    }

    /// How long the kernel may use a name without asking. The one look-up that a hot entry makes after it
    /// is how its use is noticed.
    fn entry_ttl(&self, stat: &Stat) -> Duration {
        if self.vfs.is_generated(stat.ino) {
            return Vfs::GENERATED_TTL;
        }
        match stat.kind {
            Kind::Directory => FOREVER,
            Kind::File | Kind::Symlink => self.vfs.config().sample,
        }
    }

    fn attr_ttl(&self, stat: &Stat) -> Duration {
        if stat.kind == Kind::Directory && self.vfs.is_generated(stat.ino) {
            return Vfs::GENERATED_TTL;
        }
        FOREVER
    }

    fn entry(&self, operation: Operation, result: Result<Stat>, reply: ReplyEntry) {
        match result {
            Ok(stat) => {
                let (attr, entry) = (self.attr_ttl(&stat), self.entry_ttl(&stat));
                reply.entry_with_ttls(&attr, &entry, &file_attr(&stat), GENERATION);
            }
            Err(error) => reply.error(self.failed(operation, &error)),
        }
    }

    fn attr(&self, operation: Operation, result: Result<Stat>, reply: ReplyAttr) {
        match result {
            Ok(stat) => reply.attr(&self.attr_ttl(&stat), &file_attr(&stat)),
            Err(error) => reply.error(self.failed(operation, &error)),
        }
    }

    fn failed(&self, operation: Operation, error: &Error) -> Errno {
        failed(&self.vfs, operation, error)
    }

    fn done(&self, operation: Operation, result: Result<()>, reply: ReplyEmpty) {
        done(&self.vfs, operation, result, reply);
    }

    /// As [`Adapter::done`], for what may wait for the disk: another thread runs it and replies.
    fn later(
        &self,
        operation: Operation,
        run: impl FnOnce(&Vfs) -> Result<()> + Send + 'static,
        reply: ReplyEmpty,
    ) {
        let vfs = Arc::clone(&self.vfs);
        self.flushes
            .run(move || done(&vfs, operation, run(&vfs), reply));
    }

    fn xattr(&self, operation: Operation, result: Result<Vec<u8>>, size: u32, reply: ReplyXattr) {
        match result {
            Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
            Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
            Ok(value) => reply.data(&value),
            Err(error) => reply.error(self.failed(operation, &error)),
        }
    }

    fn count(&self, operation: Operation) {
        self.vfs.counters().request(operation);
    }
}

fn failed(vfs: &Vfs, operation: Operation, error: &Error) -> Errno {
    log::debug!("{}: {error}", operation.name());
    vfs.counters().error(error.errno);
    errno(error)
}

fn done(vfs: &Vfs, operation: Operation, result: Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(failed(vfs, operation, &error)),
    }
}

fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let taken = Capabilities::negotiate(config);
        log::debug!("the kernel agreed to {taken:?}");
        // Called once per session.
        let _ = self.capabilities.set(taken);
        Ok(())
    }

    fn destroy(&mut self) {
        self.flushes.finish();
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.count(Operation::Lookup);
        match self.vfs.lookup(parent.0, name) {
            Err(Error::NO_ENTRY) => {
                let ttl = match self.vfs.is_generated(parent.0) {
                    true => Vfs::GENERATED_TTL,
                    false => self.vfs.config().sample,
                };
                reply.entry_with_ttls(&Duration::ZERO, &ttl, &missing(), GENERATION);
            }
            result => self.entry(Operation::Lookup, result, reply),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        self.count(Operation::Forget);
        self.vfs.forget(ino.0, count);
    }

    fn getattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        self.count(Operation::Getattr);
        self.attr(Operation::Getattr, self.vfs.getattr(ino.0), reply);
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.count(Operation::Setattr);
        let changes = Changes {
            mode,
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
        };
        self.attr(Operation::Setattr, self.vfs.setattr(ino.0, &changes), reply);
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        self.count(Operation::Readlink);
        match self.vfs.readlink(ino.0) {
            Ok(target) => reply.data(target.as_encoded_bytes()),
            Err(error) => reply.error(self.failed(Operation::Readlink, &error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        self.count(Operation::Mknod);
        let result = match mode & libc::S_IFMT {
            libc::S_IFREG | 0 => self.vfs.create(parent.0, name, mode, caller(request), true),
            _ => Err(Error::UNSUPPORTED_KIND),
        };
        self.entry(Operation::Mknod, result, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        self.count(Operation::Mkdir);
        self.entry(
            Operation::Mkdir,
            self.vfs.mkdir(parent.0, name, mode, caller(request)),
            reply,
        );
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.count(Operation::Unlink);
        self.done(Operation::Unlink, self.vfs.unlink(parent.0, name), reply);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.count(Operation::Rmdir);
        self.done(Operation::Rmdir, self.vfs.rmdir(parent.0, name), reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        self.count(Operation::Symlink);
        self.entry(
            Operation::Symlink,
            self.vfs
                .symlink(parent.0, name, target.as_os_str(), caller(request)),
            reply,
        );
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.count(Operation::Rename);
        let mode = match flags {
            flags if flags.is_empty() => RenameMode::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return reply.error(Errno::EINVAL),
        };
        let (parent, new_parent) = (parent.0, new_parent.0);
        if self.vfs.rename_flushes(parent, name) {
            let (name, new_name) = (name.to_owned(), new_name.to_owned());
            let rename =
                move |vfs: &Vfs| vfs.rename((parent, &name), (new_parent, &new_name), mode);
            self.later(Operation::Rename, rename, reply);
        } else {
            let renamed = self
                .vfs
                .rename((parent, name), (new_parent, new_name), mode);
            self.done(Operation::Rename, renamed, reply);
        }
    }

    fn link(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _parent: INodeNo,
        _name: &OsStr,
        reply: ReplyEntry,
    ) {
        self.count(Operation::Link);
        self.entry(Operation::Link, Err(Error::UNSUPPORTED_KIND), reply);
    }

    fn open(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.count(Operation::Open);
        if self.offers(|kernel| kernel.no_open) {
            // 'Never ask again': from here on the kernel opens and closes by itself.
            return reply.error(Errno::ENOSYS);
        }
        reply.opened(
            FileHandle(0),
            FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH,
        );
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.count(Operation::Read);
        match self.vfs.read(ino.0, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(self.failed(Operation::Read, &error)),
        }
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.count(Operation::Write);
        match self.vfs.write(ino.0, offset, data) {
            // One message is at most MAX_WRITE long.
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(self.failed(Operation::Write, &error)),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.count(Operation::Flush);
        reply.error(Errno::ENOSYS);
    }

    fn fsync(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.count(Operation::Fsync);
        self.later(Operation::Fsync, move |vfs| vfs.fsync(ino.0), reply);
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.count(Operation::Opendir);
        if self.offers(|kernel| kernel.no_opendir) {
            return reply.error(Errno::ENOSYS);
        }
        reply.opened(
            FileHandle(0),
            FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR,
        );
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.count(Operation::Readdir);
        let listed = self.vfs.read_dir(ino.0, offset, false, |entry| {
            !reply.add(
                INodeNo(entry.stat.ino),
                entry.position,
                file_type(entry.stat.kind),
                entry.name,
            )
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.failed(Operation::Readdir, &error)),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.count(Operation::Readdirplus);
        let listed = self.vfs.read_dir(ino.0, offset, true, |entry| {
            // One time-out serves for both here, so it is the shorter one.
            let ttl = self.entry_ttl(&entry.stat).min(self.attr_ttl(&entry.stat));
            let attr = file_attr(&entry.stat);
            !reply.add(
                attr.ino,
                entry.position,
                entry.name,
                &ttl,
                &attr,
                GENERATION,
            )
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.failed(Operation::Readdirplus, &error)),
        }
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.count(Operation::Fsyncdir);
        self.later(Operation::Fsyncdir, move |vfs| vfs.fsync_dir(ino.0), reply);
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.count(Operation::Statfs);
        match self.vfs.space() {
            Ok(space) => reply.statfs(
                space.blocks,
                space.free,
                space.free,
                space.files,
                space.files_free,
                BLOCK as u32,
                NAME_MAX as u32,
                BLOCK as u32,
            ),
            Err(error) => reply.error(self.failed(Operation::Statfs, &error)),
        }
    }

    fn setxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.count(Operation::Setxattr);
        let flags = u32::try_from(flags).unwrap_or(0);
        self.done(
            Operation::Setxattr,
            self.vfs.set_xattr(ino.0, name, value, flags),
            reply,
        );
    }

    fn getxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        self.count(Operation::Getxattr);
        self.xattr(
            Operation::Getxattr,
            self.vfs.xattr(ino.0, name),
            size,
            reply,
        );
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.count(Operation::Listxattr);
        let joined = self.vfs.xattrs(ino.0).map(|keys| {
            keys.iter()
                .flat_map(|key| key.as_encoded_bytes().iter().copied().chain([0]))
                .collect()
        });
        self.xattr(Operation::Listxattr, joined, size, reply);
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.count(Operation::Removexattr);
        self.done(
            Operation::Removexattr,
            self.vfs.remove_xattr(ino.0, name),
            reply,
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.count(Operation::Create);
        let exclusive = flags & libc::O_EXCL != 0;
        match self
            .vfs
            .create(parent.0, name, mode, caller(request), exclusive)
        {
            Ok(stat) => reply.created(
                &self.entry_ttl(&stat),
                &file_attr(&stat),
                GENERATION,
                FileHandle(0),
                FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH,
            ),
            Err(error) => reply.error(self.failed(Operation::Create, &error)),
        }
    }
}
