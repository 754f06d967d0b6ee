//! The callbacks.

use std::ffi::OsStr;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::adapter::Adapter;
use super::capabilities::Capabilities;
use super::convert::{file_attr, file_type, set_time};
use super::replies::GENERATION;
use crate::vfs::{
    BLOCK, Caller, Changes, Error, NAME_MAX, Operation, Patience, RenameMode, Renamed,
};

/// 'Never ask again': the kernel then answers EOPNOTSUPP by itself (Linux, fs/fuse/xattr.c). Else it asks before
/// the first write to each file, for `security.capability`, and `ls -l` twice for each file.
const NO_XATTRS: Errno = Errno::ENOSYS;

/// Whether an operation was given up because the disk would have had to be waited for.
fn would_wait(error: &Error) -> bool {
    *error == Error::WouldWait
}

fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
    }
}

/// A callback that refuses: counted, without a word in the log, and answered on the reader's own path.
macro_rules! declined {
    ($callback:ident: $operation:ident, $errno:ident, $reply:ty, $($argument:ty),+) => {
        fn $callback(&self, _: &Request, _: INodeNo, $(_: $argument,)+ reply: $reply) {
            let _handled = self.request(Operation::$operation);
            reply.error(Errno::$errno);
        }
    };
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
        self.reads.finish();
        self.flushes.finish();
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _handled = self.request(Operation::Lookup);
        let (parent, task) = (parent.0, request.pid());
        // A list that is made there takes long.
        let _on_errand = self
            .vfs
            .is_hidden_folder(parent)
            .then(|| self.readers.errand());
        match self.vfs.lookup_by(task, parent, name, Patience::None) {
            Err(error) if would_wait(&error) => {
                let (replies, name) = (self.replies.clone(), name.to_owned());
                self.reads.run(move || {
                    let result = replies.vfs.lookup_by(task, parent, &name, Patience::Any);
                    replies.found(parent, result, reply);
                });
            }
            result => self.replies.found(parent, result, reply),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        self.vfs.counters().request(Operation::Forget);
        // What ends with it may have to be closed on the disk.
        let _on_errand = self.readers.errand();
        self.vfs.forget(ino.0, count);
    }

    fn getattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let _handled = self.request(Operation::Getattr);
        self.replies
            .attr(Operation::Getattr, self.vfs.getattr(ino.0), reply);
    }

    fn setattr(
        &self,
        request: &Request,
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
        let _handled = self.request_that_may_wait(Operation::Setattr);
        let changes = Changes {
            mode,
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
        };
        let result = if self.vfs.is_sweep_request(ino.0) {
            self.vfs.ask_to_sweep(request.uid())
        } else {
            self.vfs.setattr(ino.0, &changes)
        };
        self.replies.attr(Operation::Setattr, result, reply);
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        let _handled = self.request(Operation::Readlink);
        match self.vfs.readlink(ino.0) {
            Ok(target) => reply.data(target.as_encoded_bytes()),
            Err(error) => reply.error(self.replies.failed(Operation::Readlink, &error)),
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
        let _handled = self.request_that_may_wait(Operation::Mknod);
        let result = match mode & libc::S_IFMT {
            libc::S_IFREG | 0 => self.vfs.create(parent.0, name, mode, caller(request), true),
            _ => Err(Error::UnsupportedKind),
        };
        self.replies.entry(Operation::Mknod, result, reply);
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
        let _handled = self.request_that_may_wait(Operation::Mkdir);
        self.replies.entry(
            Operation::Mkdir,
            self.vfs.mkdir(parent.0, name, mode, caller(request)),
            reply,
        );
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _handled = self.request_that_may_wait(Operation::Unlink);
        self.replies
            .done(Operation::Unlink, self.vfs.unlink(parent.0, name), reply);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _handled = self.request_that_may_wait(Operation::Rmdir);
        self.replies
            .done(Operation::Rmdir, self.vfs.rmdir(parent.0, name), reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let _handled = self.request_that_may_wait(Operation::Symlink);
        self.replies.entry(
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
        let _handled = self.request(Operation::Rename);
        let mode = match flags {
            flags if flags.is_empty() => RenameMode::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return reply.error(Errno::EINVAL),
        };
        let (parent, new_parent) = (parent.0, new_parent.0);
        let replies = self.replies.clone();
        let (from, to) = ((parent, name), (new_parent, new_name));
        self.vfs.target_was_looked_up(new_parent, new_name);
        let on_errand = self.readers.errand();
        match self.vfs.rename(from, to, mode, Patience::None) {
            Err(Error::WouldWait) => {
                let (name, new_name) = (name.to_owned(), new_name.to_owned());
                self.flushes.run(move || {
                    let (from, to) = (
                        (parent, name.as_os_str()),
                        (new_parent, new_name.as_os_str()),
                    );
                    let renamed = replies.vfs.rename(from, to, mode, Patience::Any);
                    replies.renamed(renamed, reply);
                });
            }
            // Storing a page waits for who has it locked, perhaps for a read that has to be answered first.
            renamed @ Ok(Renamed { push: Some(_) }) if on_errand.is_none() => {
                self.flushes.run(move || replies.renamed(renamed, reply));
            }
            renamed => replies.renamed(renamed, reply),
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
        let _handled = self.request(Operation::Link);
        self.replies
            .entry(Operation::Link, Err(Error::UnsupportedKind), reply);
    }

    fn open(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let _handled = self.request(Operation::Open);
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
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _handled = self.request(Operation::Read);
        let ino = ino.0;
        // A program that goes past the caches wants to know what is on the medium.
        if offset == 0 && flags.0 & libc::O_DIRECT != 0 {
            let replies = self.replies.clone();
            return self.reads.run(move || {
                let checked = replies.vfs.check_again(ino);
                let read = || replies.vfs.read(ino, offset, size, Patience::Any);
                replies.data(checked.and_then(|()| read()), reply);
            });
        }
        match self.vfs.read(ino, offset, size, Patience::None) {
            Err(error) if would_wait(&error) => {
                let replies = self.replies.clone();
                self.reads.run(move || {
                    let result = replies.vfs.read(ino, offset, size, Patience::Any);
                    replies.data(result, reply);
                });
            }
            result => self.replies.data(result, reply),
        }
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _handled = self.request_that_may_wait(Operation::Write);
        let drop_set_id = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        match self.vfs.write(ino.0, offset, data, drop_set_id) {
            Ok(()) => {
                // One message is at most MAX_WRITE long.
                reply.written(data.len() as u32);
                self.vfs.prepare(ino.0);
            }
            Err(error) => reply.error(self.replies.failed(Operation::Write, &error)),
        }
    }

    fn fsync(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let _handled = self.request(Operation::Fsync);
        self.later(Operation::Fsync, move |vfs| vfs.fsync(ino.0), reply);
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let _handled = self.request(Operation::Opendir);
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
        request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let _handled = self.request(Operation::Readdir);
        let listed = self
            .vfs
            .read_dir_by(request.pid(), ino.0, offset, false, |entry| {
                !reply.add(
                    INodeNo(entry.stat.ino),
                    entry.position,
                    file_type(entry.stat.kind),
                    entry.name,
                )
            });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.replies.failed(Operation::Readdir, &error)),
        }
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _handled = self.request_that_may_wait(Operation::Readdirplus);
        let listed = self
            .vfs
            .read_dir_by(request.pid(), ino.0, offset, true, |entry| {
                let ttl = self.replies.listing_ttl(&entry.stat);
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
            Err(error) => reply.error(self.replies.failed(Operation::Readdirplus, &error)),
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
        let _handled = self.request(Operation::Fsyncdir);
        self.later(Operation::Fsyncdir, move |vfs| vfs.fsync_dir(ino.0), reply);
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let _handled = self.request_that_may_wait(Operation::Statfs);
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
            Err(error) => reply.error(self.replies.failed(Operation::Statfs, &error)),
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
        let _handled = self.request_that_may_wait(Operation::Setxattr);
        if !self.vfs.config().xattrs {
            return reply.error(NO_XATTRS);
        }
        let flags = u32::try_from(flags).unwrap_or(0);
        self.replies.done(
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
        let _handled = self.request_that_may_wait(Operation::Getxattr);
        if !self.vfs.config().xattrs {
            return reply.error(NO_XATTRS);
        }
        self.replies.xattr(
            Operation::Getxattr,
            self.vfs.xattr(ino.0, name),
            size,
            reply,
        );
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _handled = self.request_that_may_wait(Operation::Listxattr);
        if !self.vfs.config().xattrs {
            return reply.error(NO_XATTRS);
        }
        let joined = self.vfs.xattrs(ino.0).map(|keys| {
            keys.iter()
                .flat_map(|key| key.as_encoded_bytes().iter().copied().chain([0]))
                .collect()
        });
        self.replies
            .xattr(Operation::Listxattr, joined, size, reply);
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _handled = self.request_that_may_wait(Operation::Removexattr);
        if !self.vfs.config().xattrs {
            return reply.error(NO_XATTRS);
        }
        self.replies.done(
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
        let _handled = self.request_that_may_wait(Operation::Create);
        let exclusive = flags & libc::O_EXCL != 0;
        match self
            .vfs
            .create(parent.0, name, mode, caller(request), exclusive)
        {
            Ok(stat) => reply.created(
                &self.replies.entry_ttl(&stat),
                &file_attr(&stat),
                GENERATION,
                FileHandle(0),
                FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH,
            ),
            Err(error) => reply.error(self.replies.failed(Operation::Create, &error)),
        }
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let _handled = self.request(Operation::Release);
        reply.ok();
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let _handled = self.request(Operation::Releasedir);
        reply.ok();
    }

    // As a regular file's on any filesystem. The kernel remembers no answer to an ioctl, and Python up to 3.13
    // sends one at each open() (isatty).
    declined!(ioctl: Ioctl, ENOTTY, ReplyIoctl, FileHandle, IoctlFlags, u32, &[u8], u32);

    // 'Never ask again', so that the kernel does by itself what it does where a filesystem has nothing special:
    // a file has no holes, is copied by reading and writing, is always ready, and has no preallocation (EOPNOTSUPP).
    declined!(lseek: Lseek, ENOSYS, ReplyLseek, FileHandle, i64, i32);
    declined!(copy_file_range: CopyFileRange, ENOSYS, ReplyWrite, FileHandle, u64, INodeNo, FileHandle, u64, u64, CopyFileRangeFlags);
    declined!(poll: Poll, ENOSYS, ReplyPoll, FileHandle, PollNotifier, PollEvents, PollFlags);
    declined!(fallocate: Fallocate, ENOSYS, ReplyEmpty, FileHandle, u64, u64, i32);
    declined!(bmap: Bmap, ENOSYS, ReplyBmap, u32, u64);
    // It checks modes by itself, or there is nobody but root to check.
    declined!(access: Access, ENOSYS, ReplyEmpty, AccessFlags);
    // A close does nothing here.
    declined!(flush: Flush, ENOSYS, ReplyEmpty, FileHandle, LockOwner);
    // Locks are the kernel's, since FUSE_POSIX_LOCKS is not requested; so neither comes.
    declined!(getlk: Getlk, ENOSYS, ReplyLock, FileHandle, LockOwner, u64, u64, i32, u32);
    declined!(setlk: Setlk, ENOSYS, ReplyEmpty, FileHandle, LockOwner, u64, u64, i32, u32, bool);
}
