//! Making, finding and removing names.

use std::ffi::OsStr;
use std::sync::Arc;

use rustix::io::Errno;

use super::attr::{Attr, Caller, Kind, Stat};
use super::buffer::Buffer;
use super::counters::bump;
use super::dir::{Dir, Folder};
use super::error::{Error, Result};
use super::file::File;
use super::node::{Body, Name, Node};
use super::{NAME_MAX, Patience, Vfs};

const SET_GROUP_ID: u32 = 0o2000;

impl Vfs {
    pub(super) fn check_name(&self, parent: u64, name: &OsStr) -> Result<()> {
        if name.len() > NAME_MAX {
            return Err(Error::NameTooLong);
        }
        if self.is_hidden(parent, name) || self.is_in_hidden(parent) {
            return Err(Error::Hidden);
        }
        Ok(())
    }

    /// Finds a name, and counts a look-up of the inode and a use of the entry.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, ESTALE; ENAMETOOLONG above 255 bytes; EAGAIN with [`Patience::None`] if the entry has to
    /// be checked first and the disk would have to be waited for.
    pub fn lookup(&self, parent: u64, name: &OsStr, patience: Patience) -> Result<Stat> {
        self.lookup_by(0, parent, name, patience)
    }

    /// As [`Vfs::lookup`], for the thread `task`: what it looks up after it has listed the name itself is no use, or a
    /// backup would keep everything young.
    ///
    /// # Errors
    /// As [`Vfs::lookup`].
    pub fn lookup_by(
        &self,
        task: u32,
        parent: u64,
        name: &OsStr,
        patience: Patience,
    ) -> Result<Stat> {
        if self.is_hidden(parent, name) || self.is_in_hidden(parent) {
            return self.hidden_lookup(parent, name, patience);
        }
        let parent = self.directory(parent)?;
        let folder = parent.folder();
        if name.len() > NAME_MAX {
            return Err(Error::NameTooLong);
        }
        let found = folder.children.read().get(name).cloned();
        if let Some(node) = found
            && !self.verify(&node, patience)?
        {
            self.count_miss(name);
            return Err(Error::NoEntry);
        }
        // Counted while the name cannot go: an inode without a name and without look-ups is dropped.
        let children = folder.children.read();
        let Some(node) = children.get(name) else {
            self.count_miss(name);
            return Err(Error::NoEntry);
        };
        node.count_lookup();
        if node.kind() == Kind::File {
            bump(&self.counters.hits);
            if !node.standing.was_listed_by(task) {
                self.mark_used(node);
            }
        }
        Ok(node.stat())
    }

    fn attr_for(&self, parent: &Dir, mode: u32, caller: Caller) -> Attr {
        let inherited = {
            let meta = parent.meta.lock();
            (meta.attr.mode & SET_GROUP_ID != 0).then_some(meta.attr.gid)
        };
        let ceiling = parent.folder().disk.ceiling();
        let now = self.now();
        Attr {
            size: 0,
            mode: mode & ceiling,
            uid: caller.uid,
            gid: inherited.unwrap_or(caller.gid),
            atime: now,
            mtime: now,
            ctime: now,
        }
    }

    /// Whether a file with this owner and group can be committed: what cannot is refused when it is made.
    pub(super) fn check_owner(&self, attr: &Attr) -> Result<()> {
        self.disk
            .can_give_to(attr.uid, attr.gid)
            .map_err(Error::Owner)
    }

    pub(super) fn touch_directory(&self, node: &Node) {
        let now = self.now();
        let mut meta = node.meta.lock();
        meta.attr.mtime = now;
        meta.attr.ctime = now;
    }

    /// Makes an empty file, in memory only, and counts a look-up of it. A file that has the name already
    /// is what is returned, unless `exclusive`.
    ///
    /// # Errors
    /// EEXIST, EISDIR, EROFS, ENAMETOOLONG, ENOTDIR, ESTALE, EPERM in the hidden folder and for an owner that the
    /// daemon may not give to a file.
    pub fn create(
        &self,
        parent: u64,
        name: &OsStr,
        mode: u32,
        caller: Caller,
        exclusive: bool,
    ) -> Result<Stat> {
        // In a mount without writes too an engine's temporary file can be made: engines forgive the rename that
        // then fails, but not this.
        if self.config.pattern.temporary_name(name).is_none() {
            self.check_writable()?;
        }
        self.check_name(parent, name)?;
        self.refused.check(parent, name)?;
        let parent = self.directory(parent)?;
        let folder = parent.folder();
        let attr = self.attr_for(&parent, mode, caller);
        self.check_owner(&attr)?;
        let _names = folder.names.lock();
        if let Some(node) = folder.children.read().get(name) {
            return match (exclusive, node.kind()) {
                (false, Kind::File) => {
                    node.count_lookup();
                    Ok(node.stat())
                }
                (false, Kind::Directory) => Err(Error::IsADirectory),
                _ => Err(Error::Exists),
            };
        }
        let buffer = Buffer::new(&self.staging, Vec::new(), false)?;
        let body = Body::File(File::staged(buffer, &self.used));
        let node = self.enter(&parent, name, attr, body);
        node.verified
            .store(true, std::sync::atomic::Ordering::Release);
        self.in_place_changed(&node);
        Ok(node.stat())
    }

    /// As [`Vfs::adopt`], for a name that the kernel asked for: counts its look-up before anybody can remove it.
    fn enter(&self, parent: &Dir, name: &OsStr, attr: Attr, body: Body) -> Arc<Node> {
        let node = self.adopt(parent, Name::from(name), attr, body);
        node.count_lookup();
        self.touch_directory(parent);
        node
    }

    /// Makes a directory, on disk at once, and counts a look-up of it.
    ///
    /// # Errors
    /// EEXIST, EROFS, ENAMETOOLONG, ENOTDIR, ESTALE, EPERM in the hidden folder; those of the backing filesystem.
    pub fn mkdir(&self, parent: u64, name: &OsStr, mode: u32, caller: Caller) -> Result<Stat> {
        self.make(parent, name, |parent, folder| {
            let mut attr = self.attr_for(parent, mode, caller);
            attr.mode |= parent.meta.lock().attr.mode & SET_GROUP_ID;
            attr.size = super::BLOCK;
            let owner = (attr.uid, attr.gid);
            let disk = self.disk.make_dir(&folder.disk, name, attr.mode, owner)?;
            Ok((attr, Body::Directory(Box::new(Folder::new(disk)))))
        })
    }

    /// Makes a symbolic link, on disk at once, and counts a look-up of it.
    ///
    /// # Errors
    /// As [`Vfs::mkdir`].
    pub fn symlink(
        &self,
        parent: u64,
        name: &OsStr,
        target: &OsStr,
        caller: Caller,
    ) -> Result<Stat> {
        self.make(parent, name, |parent, folder| {
            let mut attr = self.attr_for(parent, 0o777, caller);
            attr.size = target.len() as u64;
            let owner = (attr.uid, attr.gid);
            self.disk.make_symlink(&folder.disk, name, target, owner)?;
            Ok((attr, Body::Symlink(target.into())))
        })
    }

    fn make(
        &self,
        parent: u64,
        name: &OsStr,
        make: impl FnOnce(&Dir, &Folder) -> Result<(Attr, Body)>,
    ) -> Result<Stat> {
        self.check_writable()?;
        self.check_name(parent, name)?;
        let parent = self.directory(parent)?;
        let folder = parent.folder();
        let _names = folder.names.lock();
        if folder.children.read().get(name).is_some() {
            return Err(Error::Exists);
        }
        // Taken until it is counted itself.
        let _room = self
            .folders_and_links
            .charge(1)
            .ok_or(Error::TooManyInodes)?;
        let (attr, body) = make(&parent, folder)?;
        Ok(self.enter(&parent, name, attr, body).stat())
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// EINVAL for anything else, ESTALE.
    pub fn readlink(&self, ino: u64) -> Result<Box<OsStr>> {
        match &self.node(ino)?.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(Error::WrongKind),
        }
    }

    /// Removes a file or symbolic link. Who has it open can go on reading it.
    ///
    /// # Errors
    /// ENOENT, EISDIR, EROFS, ENOTDIR, ESTALE, EPERM in the hidden folder; those of the backing filesystem.
    pub fn unlink(&self, parent: u64, name: &OsStr) -> Result<()> {
        self.remove(parent, name, Kind::File)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, ENOTEMPTY, EROFS, ESTALE, EPERM in the hidden folder; those of the backing filesystem.
    pub fn rmdir(&self, parent: u64, name: &OsStr) -> Result<()> {
        self.remove(parent, name, Kind::Directory)
    }

    fn remove(&self, parent: u64, name: &OsStr, expected: Kind) -> Result<()> {
        self.check_name(parent, name)?;
        let parent = self.directory(parent)?;
        let folder = parent.folder();
        let _names = folder.names.lock();
        let node = folder
            .children
            .read()
            .get(name)
            .cloned()
            .ok_or(Error::NoEntry)?;
        if !self.is_temporary(&node) {
            self.check_writable()?;
        }
        match (expected, Dir::of(&node)) {
            (Kind::Directory, None) => return Err(Error::NotADirectory),
            (Kind::Directory, Some(own)) if !own.folder().children.read().is_empty() => {
                return Err(Error::NotEmpty);
            }
            (Kind::File | Kind::Symlink, Some(_)) => return Err(Error::IsADirectory),
            _ => {}
        }
        self.remove_at(&parent, folder, name, &node)
    }

    /// Removes a name, on disk and in memory. The caller holds the names of the directory.
    pub(super) fn remove_at(
        &self,
        parent: &Node,
        folder: &Folder,
        name: &OsStr,
        node: &Arc<Node>,
    ) -> Result<()> {
        let _replacing = folder.replacing();
        if self.is_on_disk(node) {
            if let Some(place) = node.place() {
                self.hold(node, &place);
            }
            let removed = match node.kind() {
                Kind::Directory => self.disk.remove_dir(&folder.disk, name),
                Kind::File | Kind::Symlink => self.disk.unlink(&folder.disk, name),
            };
            match removed {
                // Somebody removed it behind our back: that is what was wanted.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => {
                    self.unhold(node);
                    return Err(error.into());
                }
            }
        }
        folder.children.write().remove(name);
        self.touch_directory(parent);
        self.detach(node);
        Ok(())
    }

    /// Whether the backing directory has something under the inode's name.
    pub(super) fn is_on_disk(&self, node: &Node) -> bool {
        node.file().is_none_or(|file| file.on_disk.is_charged())
    }

    /// The inode has lost its name: it lives on only as long as the kernel knows it.
    pub(super) fn detach(&self, node: &Node) {
        {
            let mut meta = node.meta.lock();
            meta.place = None;
            meta.attr.ctime = self.now();
        }
        self.discharge(node);
        self.memory.remove(node.ino);
        self.refused.clear(node.ino);
        self.forget_number(node);
        if !node.is_known() {
            self.nodes.remove(&node.ino);
        }
    }
}
