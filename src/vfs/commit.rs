//! Rename: the commit point.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;

use super::Vfs;
use super::attr::Kind;
use super::content::Tail;
use super::dir::{Dir, Folder};
use super::error::{Error, Result};
use super::file::Content;
use super::node::{Name, Node, Place};
use super::notice::Notice;
use super::persist::{PATIENT, Ready, Unflushed};
use crate::config::Durability;
use crate::tier::Patience;

/// What a rename does with a name that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RenameMode {
    /// Replace it.
    #[default]
    Replace,
    /// Fail with EEXIST (`RENAME_NOREPLACE`).
    NoReplace,
    /// Swap the two (`RENAME_EXCHANGE`).
    Exchange,
}

/// What a rename that was done leaves to do.
#[derive(Debug, Default)]
pub struct Renamed {
    /// What the kernel's page cache lacks of the file that was committed, to be stored there before the answer.
    pub push: Option<Tail>,
}

/// One side of a rename.
struct Side<'a> {
    parent: Dir,
    name: &'a OsStr,
}

impl Side<'_> {
    fn folder(&self) -> &Folder {
        self.parent.folder()
    }

    fn child(&self) -> Option<Arc<Node>> {
        self.folder().children.read().get(self.name).cloned()
    }

    fn place(&self) -> Place {
        Place {
            parent: self.parent.clone(),
            name: Name::from(self.name),
        }
    }
}

impl Vfs {
    /// Renames. A staged file is committed by it: when this returns, its whole content is in the
    /// backing directory under the new name. After an error both names are as they were, unless only the
    /// flush after the rename failed (`--durability power`, or after an fsync): then the rename is done.
    ///
    /// # Errors
    /// ENOENT, EEXIST, EISDIR, ENOTDIR, ENOTEMPTY, EINVAL (a directory into itself), EROFS, ENAMETOOLONG,
    /// ESTALE, EPERM in the hidden folder; with [`Patience::None`] EAGAIN if the medium or another thread would have to
    /// be waited for; that of the write that failed, if a file is not whole; those of the backing filesystem, ENOSPC
    /// among them.
    pub fn rename(
        &self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        mode: RenameMode,
        patience: Patience,
    ) -> Result<Renamed> {
        self.check_writable()?;
        self.check_name(from.0, from.1)?;
        self.check_name(to.0, to.1)?;
        let sides = (self.side(from)?, self.side(to)?);
        let source = sides.0.child().ok_or(Error::NoEntry)?;
        let target = sides.1.child();
        if !self.check_names(&sides, &source, target.as_ref(), mode)? {
            return Ok(Renamed::default());
        }
        if patience == Patience::None && self.rename_waits(&source, mode) {
            return Err(Error::WouldWait);
        }
        let began = Instant::now();
        self.prepare_side(&source, to, mode)?;
        if let (Some(target), RenameMode::Exchange) = (&target, mode) {
            self.prepare_side(target, from, mode)?;
        }
        let committing = !self.is_on_disk(&source);
        let size = match committing {
            true => source.meta.lock().attr.size,
            false => 0,
        };
        if committing {
            let replaced = target.as_deref();
            if patience == Patience::None && !self.has_room(size, replaced) {
                return Err(Error::WouldWait);
            }
            self.make_room(size, replaced)?;
        }
        let mut renamed = self.rename_until_done(&sides, &source, mode, patience);
        if let Err(error) = &renamed
            && is_full(error)
        {
            let spared: Vec<u64> = std::iter::once(&source)
                .chain(&target)
                .map(|node| node.ino)
                .collect();
            if self.relieve(size, &spared) {
                renamed = self.rename_until_done(&sides, &source, mode, patience);
            }
        }
        let unflushed = renamed?;
        if committing {
            self.in_place_changed(&source);
        }
        self.flush(&unflushed)?;
        if committing {
            self.counters.commit(began.elapsed());
        }
        Ok(Renamed {
            push: committing.then(|| self.tail(&source)).flatten(),
        })
    }

    /// Whether renaming it waits for the medium, or for more than one file.
    fn rename_waits(&self, source: &Node, mode: RenameMode) -> bool {
        if source.kind() == Kind::Directory
            || mode == RenameMode::Exchange
            || self.config.durability == Durability::Power
        {
            return true;
        }
        let Some(content) = source.content() else {
            return false;
        };
        let on_disk = self.is_on_disk(source);
        match content.try_lock().as_deref() {
            Some(Content::Buffered(buffer)) => on_disk || buffer.flush_wanted,
            Some(_) => false,
            None => true,
        }
    }

    /// Has a rename to `to` find on disk what it moves there; what is staged is committed by the rename itself.
    fn prepare_side(&self, source: &Arc<Node>, to: (u64, &OsStr), mode: RenameMode) -> Result<()> {
        self.check_whole(source, to)?;
        if self.is_on_disk(source) || mode == RenameMode::Exchange {
            self.persist(source)?;
        }
        Ok(())
    }

    /// Tries until nothing comes in between.
    fn rename_until_done(
        &self,
        sides: &(Side<'_>, Side<'_>),
        source: &Arc<Node>,
        mode: RenameMode,
        patience: Patience,
    ) -> Result<Unflushed> {
        let (from, to) = sides;
        for attempt in 1.. {
            let target = to.child();
            let staged = mode != RenameMode::Exchange && !self.is_on_disk(source);
            let ready = if staged
                && attempt < PATIENT
                && !self.may_wait(source, to.name, target.as_deref())
            {
                let replaces = target.is_some_and(|target| self.is_on_disk(&target));
                self.ready(source, &from.place(), Some(replaces))?
            } else {
                None
            };
            if let Some(unflushed) = self.try_rename(sides, source, (mode, patience), ready)? {
                return Ok(unflushed);
            }
        }
        Err(Error::Stale)
    }

    /// Fails if a file that is to be renamed to `to` is not whole. What is in a directory is committed.
    fn check_whole(&self, source: &Arc<Node>, to: (u64, &OsStr)) -> Result<()> {
        if let Some(error) = source.broken() {
            self.refused.note(source.ino, to.0, Name::from(to.1), error);
            return Err(error);
        }
        if let Some(dir) = Dir::of(source) {
            self.commit_below(&dir)?;
        }
        Ok(())
    }

    /// `None`: something came in between, so that it is to be tried again. With [`Patience::None`] it is not waited for
    /// those who change names in the same directories.
    fn try_rename(
        &self,
        sides: &(Side<'_>, Side<'_>),
        source: &Arc<Node>,
        (mode, patience): (RenameMode, Patience),
        ready: Option<Ready>,
    ) -> Result<Option<Unflushed>> {
        let (from, to) = sides;
        let (first, second) = if from.parent.ino <= to.parent.ino {
            (from.folder(), to.folder())
        } else {
            (to.folder(), from.folder())
        };
        let _first = first.lock_names(patience)?;
        let _second = match from.parent.ino == to.parent.ino {
            true => None,
            false => Some(second.lock_names(patience)?),
        };
        let found = from.child().ok_or(Error::NoEntry)?;
        if found.ino != source.ino {
            // What has the name now was not there when this was asked for.
            return Err(Error::NoEntry);
        }
        let target = to.child();
        if !self.check_names(sides, source, target.as_ref(), mode)? {
            return Ok(Some(Unflushed::default()));
        }
        if let (Some(target), RenameMode::Exchange) = (&target, mode) {
            return self.exchange(sides, source, target);
        }
        if self.is_on_disk(source) {
            return self
                .rename_on_disk(sides, source, target.as_ref())
                .map(Some);
        }
        if self.may_wait(source, to.name, target.as_deref()) {
            self.commit_in_memory(to, source, target.as_ref())?;
            self.renamed(sides, source, target.as_ref());
            return Ok(Some(Unflushed::default()));
        }
        self.commit(sides, source, target.as_ref(), ready)
    }

    /// What a rename may do with these names; false: nothing is to be done.
    fn check_names(
        &self,
        (from, to): &(Side<'_>, Side<'_>),
        source: &Node,
        target: Option<&Arc<Node>>,
        mode: RenameMode,
    ) -> Result<bool> {
        match (target, mode) {
            (Some(target), _) if target.ino == source.ino => return Ok(false),
            (Some(_), RenameMode::NoReplace) => return Err(Error::Exists),
            (None, RenameMode::Exchange) => return Err(Error::NoEntry),
            (Some(target), RenameMode::Exchange) => self.check_no_loop(target, &from.parent)?,
            (Some(target), RenameMode::Replace) => check_replaceable(source, target)?,
            (None, _) => {}
        }
        self.check_no_loop(source, &to.parent)?;
        Ok(true)
    }

    fn side<'a>(&self, (parent, name): (u64, &'a OsStr)) -> Result<Side<'a>> {
        Ok(Side {
            parent: self.directory(parent)?,
            name,
        })
    }

    /// Whether a commit may be written later (`--durability async`). Not if a program has flushed the
    /// content, nor under a temporary name, where it would stay unwritten.
    fn may_wait(&self, source: &Node, name: &OsStr, target: Option<&Node>) -> bool {
        let unflushed = |content: &Content| matches!(content, Content::Buffered(buffer) if !buffer.flush_wanted);
        self.config.durability == Durability::Async
            && self.config.pattern.temporary_name(name).is_none()
            && target.is_none_or(|target| target.kind() == Kind::File)
            && source
                .content()
                .is_some_and(|content| unflushed(&content.lock()))
    }

    /// Publishes a staged file's content under its final name. `None`: it is not the one that is ready.
    fn commit(
        &self,
        sides: &(Side<'_>, Side<'_>),
        source: &Arc<Node>,
        target: Option<&Arc<Node>>,
        ready: Option<Ready>,
    ) -> Result<Option<Unflushed>> {
        let (from, to) = sides;
        let content = source.content().ok_or(Error::Stale)?;
        let folder = to.folder();
        let mut content = content.lock();
        let Content::Buffered(buffer) = &mut *content else {
            return Ok(None);
        };
        if let Some(error) = source.broken() {
            return Err(error);
        }
        let replaced = target.filter(|target| self.is_on_disk(target));
        let replaces = replaced.is_some();
        let mut ready = match ready {
            Some(ready) if ready.is_of(source, replaces) => ready,
            Some(_) => return Ok(None),
            None => {
                let ready = self.write_draft(source, buffer, &from.place(), replaces)?;
                self.flush_ready(&ready)?;
                ready
            }
        };
        self.stamp_again(source, buffer, &ready)?;
        ready.set_replaces(replaces);
        if let Some(target) = replaced {
            self.hold(target, &to.place());
        }
        let published = self.publish(&mut ready, folder, to.name, || {
            self.settle(source, &mut content);
            self.renamed(sides, source, target);
        });
        if let (Err(_), Some(target)) = (&published, replaced) {
            self.unhold(target);
        }
        published.map(|()| Some(ready.unflushed([&to.parent])))
    }

    /// Publishes a staged file in memory only (`--durability async`). Until it is persisted the backing
    /// directory keeps what had the name before.
    fn commit_in_memory(
        &self,
        to: &Side<'_>,
        source: &Arc<Node>,
        target: Option<&Arc<Node>>,
    ) -> Result<()> {
        let Some(content) = source.content() else {
            return Err(Error::Stale);
        };
        let over = target.is_some_and(|target| self.is_on_disk(target));
        content.lock().commit_in_memory(over);
        if let Some(target) = target {
            self.hold(target, &to.place());
            // The file on disk is the new inode's to replace or to remove.
            self.hand_over(target, source);
        }
        if let Some(file) = source.file() {
            file.assert_consistent(&content.lock(), true);
        }
        Ok(())
    }

    /// Renames what the backing directory has under its old name.
    fn rename_on_disk(
        &self,
        sides: &(Side<'_>, Side<'_>),
        source: &Arc<Node>,
        target: Option<&Arc<Node>>,
    ) -> Result<Unflushed> {
        let (from, to) = sides;
        self.look_again(source, from)?;
        let replaced = target.filter(|target| self.is_on_disk(target));
        if let Some(target) = replaced {
            self.hold(target, &to.place());
        }
        let renamed = self.rename_names(from, to, (source, None), || {
            self.renamed(sides, source, target)
        });
        if let (Err(_), Some(target)) = (&renamed, replaced) {
            self.unhold(target);
        }
        renamed
    }

    /// A file that was there before the daemon, and has not been read since, may have been written on by who
    /// had it open already: a rename commits it as it is now.
    fn look_again(&self, source: &Node, from: &Side<'_>) -> Result<()> {
        if source.is_checked() {
            return Ok(());
        }
        let found = self.disk.find(&from.folder().disk, from.name)?;
        {
            let mut meta = source.meta.lock();
            meta.attr.size = found.size;
            meta.attr.mtime = found.mtime;
        }
        self.charge(source, found.size);
        self.notices.send(Notice::Inode { ino: source.ino });
        Ok(())
    }

    /// Renames on disk, and has `in_tree` make the tree agree before anybody can tell.
    /// With a second inode, which is at `to`, the two change places.
    fn rename_names(
        &self,
        from: &Side<'_>,
        to: &Side<'_>,
        (moved, exchanged): (&Arc<Node>, Option<&Arc<Node>>),
        in_tree: impl FnOnce(),
    ) -> Result<Unflushed> {
        let (old, new) = (from.folder(), to.folder());
        let _replacing = (old.replacing(), new.replacing());
        let directory = |node: &Arc<Node>| Dir::of(node).map(|dir| dir.folder().disk.clone());
        let (moved, exchange) = (directory(moved), exchanged.is_some());
        let exchanged = exchanged.and_then(directory);
        self.disk.rename(
            (&old.disk, from.name),
            (&new.disk, to.name),
            exchange,
            (moved.as_ref(), exchanged.as_ref()),
        )?;
        in_tree();
        let mut unflushed = Unflushed::default();
        if self.config.durability == Durability::Power {
            unflushed.folders.push(to.parent.clone());
            if from.parent.ino != to.parent.ino {
                unflushed.folders.push(from.parent.clone());
            }
        }
        Ok(unflushed)
    }

    fn exchange(
        &self,
        sides: &(Side<'_>, Side<'_>),
        source: &Arc<Node>,
        target: &Arc<Node>,
    ) -> Result<Option<Unflushed>> {
        let (from, to) = sides;
        if !self.is_on_disk(source) || !self.is_on_disk(target) {
            return Err(Error::NoEntry);
        }
        let unflushed = self.rename_names(from, to, (source, Some(target)), || {
            for (node, side) in [(source, to), (target, from)] {
                let place = side.place();
                let name = Arc::clone(&place.name);
                side.folder()
                    .children
                    .write()
                    .insert(name, Arc::clone(node));
                self.moved(node, place);
            }
            self.touched(from, to);
        })?;
        Ok(Some(unflushed))
    }

    /// Makes the tree in memory agree with a rename that has been done on disk.
    fn renamed(
        &self,
        (from, to): &(Side<'_>, Side<'_>),
        source: &Arc<Node>,
        target: Option<&Arc<Node>>,
    ) {
        let place = to.place();
        self.refused.committed(to.parent.ino, &place.name);
        let name = Arc::clone(&place.name);
        to.folder()
            .children
            .write()
            .insert(name, Arc::clone(source));
        from.folder().children.write().remove(from.name);
        self.moved(source, place);
        if let Some(target) = target {
            self.detach(target);
        }
        self.touched(from, to);
    }

    fn moved(&self, node: &Node, place: Place) {
        self.mark_committed(node);
        {
            let mut meta = node.meta.lock();
            meta.place = Some(place);
            meta.attr.ctime = self.now();
        }
        self.appraise(node);
    }

    fn touched(&self, from: &Side<'_>, to: &Side<'_>) {
        let now = self.now();
        for side in [from, to] {
            let mut meta = side.parent.meta.lock();
            meta.attr.mtime = now;
            meta.attr.ctime = now;
        }
    }

    /// A directory must not become its own descendant.
    fn check_no_loop(&self, moving: &Node, into: &Arc<Node>) -> Result<()> {
        let mut above = Some(Arc::clone(into));
        while let Some(node) = above {
            if node.ino == moving.ino {
                return Err(Error::IntoItself);
            }
            above = node.place().map(|place| Arc::clone(&place.parent));
        }
        Ok(())
    }
}

/// Whether the backing filesystem has no room, for bytes or within a quota.
pub(super) fn is_full(error: &Error) -> bool {
    matches!(error.errno(), Errno::NOSPC | Errno::DQUOT)
}

fn check_replaceable(source: &Node, target: &Arc<Node>) -> Result<()> {
    match (source.kind(), Dir::of(target)) {
        (Kind::Directory, None) => Err(Error::NotADirectory),
        (Kind::Directory, Some(dir)) if !dir.folder().children.read().is_empty() => {
            Err(Error::NotEmpty)
        }
        (Kind::File | Kind::Symlink, Some(_)) => Err(Error::IsADirectory),
        _ => Ok(()),
    }
}
