//! Rename: the commit point.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;

use super::Vfs;
use super::attr::Kind;
use super::error::{Error, Result};
use super::node::{Content, Folder, Name, Node, Place};
use super::notice::Notice;
use crate::config::Durability;

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

/// How the flush went that followed a rename. The rename itself has been done by then, in the backing
/// directory, so the tree in memory follows it either way.
pub(super) type Flushed = Result<()>;

/// One side of a rename.
struct Side<'a> {
    parent: Arc<Node>,
    name: &'a OsStr,
}

impl Side<'_> {
    fn folder(&self) -> Result<&Folder> {
        self.parent.folder().ok_or(Error::NotADirectory)
    }

    fn child(&self) -> Result<Option<Arc<Node>>> {
        Ok(self.folder()?.children.read().get(self.name).cloned())
    }

    fn place(&self) -> Place {
        Place {
            parent: Arc::clone(&self.parent),
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
    /// ESTALE, EPERM in the hidden folder; those of the backing filesystem, ENOSPC among them.
    pub fn rename(&self, from: (u64, &OsStr), to: (u64, &OsStr), mode: RenameMode) -> Result<()> {
        self.check_writable()?;
        self.check_name(from.0, from.1)?;
        self.check_name(to.0, to.1)?;
        let source = self.child_of(from)?;
        let target = self.child_of(to)?;
        let sides = (self.side(from)?, self.side(to)?);
        let source = source.ok_or(Error::NoEntry)?;
        if !self.check_names(&sides, &source, target.as_ref(), mode)? {
            return Ok(());
        }
        self.check_whole(&source, to)?;
        if let (Some(target), RenameMode::Exchange) = (&target, mode) {
            self.check_whole(target, from)?;
        }
        let size = self.staged_size(from)?;
        if let Some(size) = size {
            let replaced = target.as_deref().filter(|_| mode != RenameMode::Exchange);
            self.make_room(size, replaced)?;
        }
        let renamed = match self.try_rename(from, to, mode) {
            Err(error) if is_full(&error) => {
                let spared: Vec<u64> = [&source]
                    .into_iter()
                    .chain(&target)
                    .map(|node| node.ino)
                    .collect();
                if !self.relieve(size.unwrap_or(0), &spared) {
                    return Err(error);
                }
                self.try_rename(from, to, mode)
            }
            result => result,
        };
        // A flush that failed is no reason to rename once more: that has been done.
        renamed?
    }

    /// Fails if a file that is to be renamed to `to` is not whole. What is in a directory is committed.
    fn check_whole(&self, source: &Arc<Node>, to: (u64, &OsStr)) -> Result<()> {
        if let Some(error) = source.broken() {
            self.refused.note(source.ino, to.0, Name::from(to.1), error);
            return Err(error);
        }
        if source.kind() == Kind::Directory {
            self.commit_below(source)?;
        }
        Ok(())
    }

    fn child_of(&self, (parent, name): (u64, &OsStr)) -> Result<Option<Arc<Node>>> {
        let parent = self.directory(parent)?;
        let Some(folder) = parent.folder() else {
            return Err(Error::NotADirectory);
        };
        Ok(folder.children.read().get(name).cloned())
    }

    /// The inode that renaming this name would commit, if it is staged.
    pub fn committing(&self, parent: u64, name: &OsStr) -> Option<u64> {
        let node = self.child_of((parent, name)).ok()??;
        (!self.is_on_disk(&node)).then_some(node.ino)
    }

    /// Whether renaming this name waits for the medium.
    pub fn rename_flushes(&self, parent: u64, name: &OsStr) -> bool {
        let asked = || {
            let parent = self.directory(parent).ok()?;
            let source = parent.folder()?.children.read().get(name).cloned()?;
            let content = source.content()?.lock();
            Some(matches!(&*content, Content::Buffered(buffer) if buffer.flush_wanted))
        };
        self.config.durability == Durability::Power || asked().unwrap_or(false)
    }

    /// The size of a file that a rename is about to commit; `None` if that is nothing of the kind.
    fn staged_size(&self, from: (u64, &OsStr)) -> Result<Option<u64>> {
        let staged = self.child_of(from)?.filter(|node| !self.is_on_disk(node));
        Ok(staged.map(|node| node.meta.lock().attr.size))
    }

    fn try_rename(
        &self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        mode: RenameMode,
    ) -> Result<Flushed> {
        let sides = (self.side(from)?, self.side(to)?);
        let (from, to) = &sides;
        let (first, second) = if from.parent.ino <= to.parent.ino {
            (from.folder()?, to.folder()?)
        } else {
            (to.folder()?, from.folder()?)
        };
        let _first = first.names.lock();
        let _second = (from.parent.ino != to.parent.ino).then(|| second.names.lock());

        let source = from.child()?.ok_or(Error::NoEntry)?;
        let target = to.child()?;
        if !self.check_names(&sides, &source, target.as_ref(), mode)? {
            return Ok(Ok(()));
        }
        if let (Some(target), RenameMode::Exchange) = (&target, mode) {
            return self.exchange(from, to, &source, target);
        }
        let began = Instant::now();
        let committing = !self.is_on_disk(&source);
        let flushed = if !committing {
            self.rename_on_disk(&sides, &source, target.as_ref())?
        } else if self.may_wait(&source, to.name, target.as_deref()) {
            self.commit_in_memory(to, &source, target.as_ref())?;
            self.renamed(&sides, &source, target.as_ref());
            Ok(())
        } else {
            self.commit(&sides, &source, target.as_ref())?
        };
        if committing {
            self.in_place_changed(&source);
            self.counters.commit(began.elapsed());
        }
        Ok(flushed)
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

    /// Publishes a staged file's content under its final name.
    fn commit(
        &self,
        sides: &(Side<'_>, Side<'_>),
        source: &Arc<Node>,
        target: Option<&Arc<Node>>,
    ) -> Result<Flushed> {
        let to = &sides.1;
        let (Some(content), folder) = (source.content(), to.folder()?) else {
            return Err(Error::Stale);
        };
        let mut content = content.lock();
        let Content::Buffered(buffer) = &mut *content else {
            return Err(Error::Stale);
        };
        if let Some(error) = source.broken() {
            return Err(error);
        }
        let flush = buffer.flush_wanted || self.config.durability == Durability::Power;
        let mut draft = self.draft(source, buffer, None)?;
        let replaced = target.filter(|target| self.is_on_disk(target));
        if let Some(target) = replaced {
            self.hold(target, &to.place());
        }
        let replaces = replaced.is_some();
        let published = self.publish(&mut draft, folder, to.name, replaces, flush, || {
            self.settle(source, &mut content);
            self.renamed(sides, source, target);
        });
        if let (Err(_), Some(target)) = (&published, replaced) {
            self.unhold(target);
        }
        published
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
        if let Content::Buffered(buffer) = &mut *content.lock() {
            buffer.staged = false;
        }
        if let Some(target) = target {
            self.hold(target, &to.place());
            if let Content::Buffered(buffer) = &mut *content.lock() {
                buffer.on_disk = self.is_on_disk(target);
            }
            // The file on disk is the new inode's to replace or to remove.
            self.hand_over(target, source);
        }
        Ok(())
    }

    /// Renames what the backing directory has under its old name. Content changed in place is
    /// committed there first, so that the rename moves the whole.
    fn rename_on_disk(
        &self,
        sides: &(Side<'_>, Side<'_>),
        source: &Arc<Node>,
        target: Option<&Arc<Node>>,
    ) -> Result<Flushed> {
        let (from, to) = sides;
        let persisted = self.persist_at(source, &from.place(), from.folder()?)?;
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
        Ok(persisted.unwrap_or(Ok(())).and(renamed?))
    }

    /// A file that was there before the daemon, and has not been read since, may have been written on by who
    /// had it open already: a rename commits it as it is now.
    fn look_again(&self, source: &Node, from: &Side<'_>) -> Result<()> {
        if source.is_checked() {
            return Ok(());
        }
        let found = self.disk.find(&from.folder()?.disk, from.name)?;
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
    ) -> Result<Flushed> {
        let (old, new) = (from.folder()?, to.folder()?);
        let replacing = (old.replacing(), new.replacing());
        let directory = |node: &Arc<Node>| node.folder().map(|folder| folder.disk.clone());
        let (moved, exchange) = (directory(moved), exchanged.is_some());
        let exchanged = exchanged.and_then(directory);
        self.disk.rename(
            (&old.disk, from.name),
            (&new.disk, to.name),
            exchange,
            (moved.as_ref(), exchanged.as_ref()),
        )?;
        in_tree();
        drop(replacing);
        if self.config.durability != Durability::Power {
            return Ok(Ok(()));
        }
        let mut flushed = self.disk.flush_dir(&new.disk);
        if from.parent.ino != to.parent.ino {
            flushed = flushed.and(self.disk.flush_dir(&old.disk));
        }
        Ok(flushed.map_err(Error::from))
    }

    fn exchange(
        &self,
        from: &Side<'_>,
        to: &Side<'_>,
        source: &Arc<Node>,
        target: &Arc<Node>,
    ) -> Result<Flushed> {
        let first = self.persist_at(source, &from.place(), from.folder()?)?;
        let second = self.persist_at(target, &to.place(), to.folder()?)?;
        let flushed = self.rename_names(from, to, (source, Some(target)), || {
            for (node, side) in [(source, to), (target, from)] {
                let place = side.place();
                if let Ok(folder) = side.folder() {
                    let name = Arc::clone(&place.name);
                    folder.children.write().insert(name, Arc::clone(node));
                }
                self.moved(node, place);
            }
            self.touched(from, to);
        })?;
        let persisted = first.unwrap_or(Ok(())).and(second.unwrap_or(Ok(())));
        Ok(persisted.and(flushed))
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
        if let (Ok(old), Ok(new)) = (from.folder(), to.folder()) {
            let name = Arc::clone(&place.name);
            new.children.write().insert(name, Arc::clone(source));
            old.children.write().remove(from.name);
        }
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
            above = node.place().map(|place| place.parent);
        }
        Ok(())
    }
}

/// Whether the backing filesystem has no room, for bytes or within a quota.
pub(super) fn is_full(error: &Error) -> bool {
    matches!(error.errno(), Errno::NOSPC | Errno::DQUOT)
}

fn check_replaceable(source: &Node, target: &Node) -> Result<()> {
    match (source.kind(), target.folder()) {
        (Kind::Directory, None) => Err(Error::NotADirectory),
        (Kind::Directory, Some(folder)) if !folder.children.read().is_empty() => {
            Err(Error::NotEmpty)
        }
        (Kind::File | Kind::Symlink, Some(_)) => Err(Error::IsADirectory),
        _ => Ok(()),
    }
}
