//! Extended attributes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::Vfs;
use super::content::is_buffered;
use super::error::{Error, Result};
use super::file::Content;
use super::node::Node;
use super::setattr::known;
use crate::tier::{DIGEST_XATTR, Digest, Known};

/// How many bytes of extended attributes a file may have before it is committed.
const STAGED_LIMIT: usize = 64 * 1024;

/// Whether `key` is in the only name space that is served.
pub(super) fn is_user(key: &OsStr) -> bool {
    key.as_bytes().starts_with(b"user.")
}

/// Whether an attribute is kidafs's own: nobody sets it through the mount, and no listing has it.
pub(super) fn is_ours(key: &OsStr) -> bool {
    key.as_bytes().starts_with(b"user.kidafs.")
}

/// An attribute's value as it is shown: of a digest not the note of which edition it is of.
fn shown(key: &OsStr, value: Vec<u8>) -> Vec<u8> {
    match Digest::from_stored(&value) {
        Some(digest) if key == DIGEST_XATTR => digest.as_bytes().to_vec(),
        _ => value,
    }
}

enum At<T> {
    Done(T),
    /// The backing directory has the inode under this name.
    Disk,
}

impl Vfs {
    /// The value of an extended attribute. The digest is that of committed content: a staged file has none yet.
    ///
    /// # Errors
    /// ENODATA, EOPNOTSUPP, ESTALE; those of the backing filesystem.
    pub fn xattr(&self, ino: u64, key: &OsStr) -> Result<Vec<u8>> {
        if !is_user(key) {
            // Asked by the kernel itself before writes (security.capability): the answer is 'none'.
            return Err(Error::NoAttribute);
        }
        let Some(node) = self.visible(ino)? else {
            return Err(Error::NoAttribute);
        };
        match self.staged(&node, |xattrs| {
            let found = xattrs.iter().find(|(own, _)| own == key);
            found
                .map(|(_, value)| value.clone())
                .ok_or(Error::NoAttribute)
        })? {
            At::Done(value) => Ok(value),
            At::Disk if is_ours(key) && is_buffered(&node) => Err(Error::NoAttribute),
            At::Disk => self.at(&node, |dir, name, _| {
                let value = self.disk.xattr(dir, name, key)?;
                Ok(shown(key, value))
            }),
        }
    }

    /// The names of the extended attributes, without the digest's: what copies all it finds (`rsync -X`) would
    /// try to remove a digest that the original lacks, and give a copy the digest of what it once was.
    ///
    /// # Errors
    /// ESTALE; those of the backing filesystem.
    pub fn xattrs(&self, ino: u64) -> Result<Vec<OsString>> {
        let Some(node) = self.visible(ino)? else {
            return Ok(Vec::new());
        };
        let keys = match self.staged(&node, |xattrs| {
            Ok(xattrs.iter().map(|(key, _)| key.clone()).collect())
        })? {
            At::Done(keys) => keys,
            At::Disk => match self.at(&node, |dir, name, _| self.disk.xattrs(dir, name)) {
                Err(error) if error.errno() == Errno::OPNOTSUPP => Vec::new(),
                other => other?,
            },
        };
        let listed = |key: &OsString| is_user(key) && !is_ours(key);
        Ok(keys.into_iter().filter(listed).collect())
    }

    /// Sets an extended attribute; `flags` as in setxattr(2). Setting the digest is accepted and has no
    /// effect, so that a copy with all attributes (`cp -a`) works: the digest is always the content's own.
    ///
    /// # Errors
    /// EOPNOTSUPP outside `user.`, EEXIST, ENODATA, ENOSPC, EROFS, ESTALE; those of the backing filesystem.
    pub fn set_xattr(&self, ino: u64, key: &OsStr, value: &[u8], flags: u32) -> Result<()> {
        self.check_writable()?;
        if !is_user(key) {
            return Err(Error::UnsupportedAttribute);
        }
        let node = self.visible(ino)?.ok_or(Error::Hidden)?;
        if is_ours(key) {
            return Ok(());
        }
        let flags = XattrFlags::from_bits_truncate(flags);
        let done = self.staged(&node, |xattrs| {
            let at = xattrs.iter().position(|(own, _)| own == key);
            let used: usize = xattrs
                .iter()
                .map(|(key, value)| key.len() + value.len())
                .sum();
            match at {
                Some(_) if flags.contains(XattrFlags::CREATE) => return Err(Error::Exists),
                None if flags.contains(XattrFlags::REPLACE) => return Err(Error::NoAttribute),
                _ if used + key.len() + value.len() > STAGED_LIMIT => {
                    return Err(Error::TooManyAttributes);
                }
                Some(at) => xattrs[at].1 = value.to_vec(),
                None => xattrs.push((key.to_owned(), value.to_vec())),
            }
            // A draft that was made of it has the old ones.
            node.changed_in_place();
            Ok(())
        })?;
        match done {
            At::Done(()) => Ok(()),
            At::Disk => self.at(&node, |dir, name, known| {
                node.changed_in_place();
                self.disk.set_xattr(dir, name, known, (key, value), flags)
            }),
        }
    }

    /// Removes an extended attribute. The digest stays, though a copy that wants it gone (`rsync -X`) is not told so.
    ///
    /// # Errors
    /// ENODATA, EOPNOTSUPP, EROFS, ESTALE; those of the backing filesystem.
    pub fn remove_xattr(&self, ino: u64, key: &OsStr) -> Result<()> {
        self.check_writable()?;
        if !is_user(key) {
            return Err(Error::UnsupportedAttribute);
        }
        let node = self.visible(ino)?.ok_or(Error::Hidden)?;
        if is_ours(key) {
            return Ok(());
        }
        let done = self.staged(&node, |xattrs| {
            let at = xattrs
                .iter()
                .position(|(own, _)| own == key)
                .ok_or(Error::NoAttribute)?;
            xattrs.remove(at);
            node.changed_in_place();
            Ok(())
        })?;
        match done {
            At::Done(()) => Ok(()),
            At::Disk => self.at(&node, |dir, name, known| {
                node.changed_in_place();
                self.disk.remove_xattr(dir, name, known, key)
            }),
        }
    }

    /// The inode, unless it is of the hidden folder, which has no extended attributes.
    fn visible(&self, ino: u64) -> Result<Option<std::sync::Arc<Node>>> {
        if self.is_in_hidden(ino) {
            return Ok(None);
        }
        self.node(ino).map(Some)
    }

    /// Runs `apply` on the attributes kept in memory, if that is where the inode's are.
    fn staged<T>(
        &self,
        node: &Node,
        apply: impl FnOnce(&mut super::node::Xattrs) -> Result<T>,
    ) -> Result<At<T>> {
        if let Some(content) = node.content()
            && let Content::Buffered(buffer) = &mut *content.lock()
            && buffer.own_xattrs
        {
            return buffer.change_xattrs(apply).map(At::Done);
        }
        Ok(At::Disk)
    }

    fn at<T>(
        &self,
        node: &Node,
        apply: impl FnOnce(&crate::tier::Directory, &OsStr, Known) -> rustix::io::Result<T>,
    ) -> Result<T> {
        if node.ino == super::ROOT {
            return Ok(apply(&self.disk.root(), OsStr::new("."), known(node))?);
        }
        let place = node.place().ok_or(Error::NoAttribute)?;
        let folder = place.parent.folder();
        let _names = folder.names.lock();
        if !node.is_at(&place) {
            return Err(Error::NoAttribute);
        }
        Ok(apply(&folder.disk, &place.name, known(node))?)
    }
}
