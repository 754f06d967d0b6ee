//! Committing content under the name it has: files that are written in place and never renamed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use rustix::io::Errno;

use super::Vfs;
use super::attr::Attr;
use super::buffer::Buffer;
use super::commit::is_full;
use super::content::is_buffered;
use super::dir::{Dir, Folder};
use super::error::{Error, Result};
use super::file::Content;
use super::node::{Node, Place, Xattrs};
use super::setattr::known;
use crate::bell::Bell;
use crate::config::Durability;
use crate::locks::{DIRTY, Mutex};
use crate::tier::{Digest, Draft, Publish, Stamp};

/// How long a file that is written in place must be left alone before it is committed.
const QUIET: Duration = Duration::from_secs(1);

/// How long a file that never is left alone can stay uncommitted.
const LONGEST: Duration = Duration::from_secs(10);

/// Files changed in place and not committed since, with the time of the last change.
#[derive(Debug, Default)]
pub(super) struct InPlace {
    changed: Mutex<DIRTY, State>,
    wake: Bell,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<u64, Changed>,
    stopped: bool,
}

/// Attempts after which a file that is written all the time is committed with the locks held.
pub(super) const PATIENT: u32 = 4;

/// A backing file with a file's content, which has no name yet.
#[derive(Debug)]
pub(super) struct Ready {
    draft: Draft,
    digest: Digest,
    /// What the inode was when it was written.
    version: u64,
    attr: Attr,
    /// Extended attributes of the file that it replaces, where the inode has none of its own.
    kept: Option<Xattrs>,
    flush: bool,
    replaces: bool,
}

impl Ready {
    /// Whether it is still what the inode is, and does what it was made for.
    pub(super) fn is_of(&self, node: &Node, replaces: bool) -> bool {
        self.version == node.version.load(Ordering::Acquire)
            && (self.replaces == replaces || !self.flush)
    }

    pub(super) fn set_replaces(&mut self, replaces: bool) {
        self.replaces = replaces;
    }

    /// What is left to be flushed once it has its name in one of `parents`.
    pub(super) fn unflushed<'a>(self, parents: impl IntoIterator<Item = &'a Dir>) -> Unflushed {
        match self.flush {
            true => Unflushed {
                draft: (!self.replaces).then_some(self.draft),
                folders: parents.into_iter().cloned().collect(),
            },
            false => Unflushed::default(),
        }
    }
}

/// What has its name, and is to be put on the medium when no lock is held any more.
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Unflushed {
    draft: Option<Draft>,
    pub(super) folders: Vec<Dir>,
}

/// What became of the files that waited to be committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Persisted {
    /// They are in the backing directory.
    pub persisted: usize,
    /// They could not be written and stay in memory.
    pub failed: usize,
}

/// When a file was changed since it was committed, on the clock that only goes forward.
#[derive(Debug, Clone, Copy)]
struct Changed {
    first: SystemTime,
    last: SystemTime,
}

impl Changed {
    fn is_due(&self, now: SystemTime) -> bool {
        let since = |time: SystemTime| now.duration_since(time).unwrap_or_default();
        since(self.last) >= QUIET || since(self.first) >= LONGEST
    }
}

impl Vfs {
    /// Whether a file is staged: it has the name of an engine's temporary file and was never committed.
    pub(super) fn is_temporary(&self, node: &Node) -> bool {
        node.charged().is_none()
            && !node.standing.is_foreign_by_form()
            && node
                .place()
                .is_some_and(|place| self.config.pattern.temporary_name(&place.name).is_some())
    }

    /// Notes that a file's content was changed, so that it is committed once it has been quiet.
    pub(super) fn in_place_changed(&self, node: &Node) {
        if self.is_temporary(node) || node.place().is_none() || !is_buffered(node) {
            return;
        }
        let mut state = self.in_place.changed.lock();
        let was_idle = state.files.is_empty();
        let now = self.steady();
        state
            .files
            .entry(node.ino)
            .and_modify(|changed| changed.last = now)
            .or_insert(Changed {
                first: now,
                last: now,
            });
        drop(state);
        if was_idle {
            self.in_place.wake.ring();
        }
    }

    fn in_place_settled(&self, ino: u64) {
        self.in_place.changed.lock().files.remove(&ino);
    }

    /// Commits each file that was written in place and has been left alone for [`QUIET`], and then
    /// whatever follows, until [`Vfs::stop_persister`]. A thread of the daemon runs this; it sleeps while
    /// there is nothing to do.
    pub fn run_persister(&self) {
        loop {
            let seen = self.in_place.wake.rung();
            let (stopped, idle) = {
                let state = self.in_place.changed.lock();
                (state.stopped, state.files.is_empty())
            };
            if stopped {
                break;
            }
            self.in_place.wake.wait(seen, (!idle).then_some(QUIET / 2));
            if !idle {
                self.persist_quiet();
            }
        }
    }

    /// Ends [`Vfs::run_persister`].
    pub fn stop_persister(&self) {
        self.in_place.changed.lock().stopped = true;
        self.in_place.wake.ring();
    }

    /// Commits each file that was written in place and has been left alone for [`QUIET`]. What cannot be
    /// written now stays in memory and is tried again.
    pub fn persist_quiet(&self) {
        let now = self.steady();
        self.persist_changed(|changed| changed.is_due(now));
    }

    /// Commits every file that waits to be; for the end of the daemon, and when the staging area is full.
    pub fn persist_all(&self) -> Persisted {
        self.persist_changed(|_| true)
    }

    fn persist_changed(&self, due: impl Fn(&Changed) -> bool) -> Persisted {
        let files: Vec<u64> = {
            let state = self.in_place.changed.lock();
            state
                .files
                .iter()
                .filter(|(_, changed)| due(changed))
                .map(|(ino, _)| *ino)
                .collect()
        };
        let mut result = Persisted::default();
        for ino in files {
            let Ok(node) = self.node(ino) else {
                self.in_place_settled(ino);
                continue;
            };
            let persisted = self.persist(&node);
            if let Ok(done) = persisted {
                result.persisted += usize::from(done);
            }
            if let Err(error) = persisted {
                log::error!("inode {ino} stays in memory: {error}");
                result.failed += 1;
                // Not before it has been quiet for a while again: a full disk is not asked in a busy loop.
                let now = self.steady();
                let again = Changed {
                    first: now,
                    last: now,
                };
                self.in_place.changed.lock().files.insert(ino, again);
            }
        }
        result
    }

    /// Commits a file's content under its own name. False if there was nothing to commit.
    pub(super) fn persist(&self, node: &Arc<Node>) -> Result<bool> {
        let size = node.meta.lock().attr.size;
        if !self.is_on_disk(node) && node.place().is_some() {
            self.make_room(size, None)?;
        }
        let persisted = match self.try_persist(node) {
            Err(error) if is_full(&error) && self.relieve(size, &[node.ino]) => {
                self.try_persist(node)
            }
            result => result,
        };
        match persisted? {
            Some(unflushed) => self.flush(&unflushed).map(|()| true),
            None => Ok(false),
        }
    }

    fn try_persist(&self, node: &Arc<Node>) -> Result<Option<Unflushed>> {
        let Some(content) = node.content() else {
            return Ok(None);
        };
        for attempt in 1.. {
            let Some(place) = node.place() else {
                self.in_place_settled(node.ino);
                return Ok(None);
            };
            let folder = place.parent.folder();
            let mut ready = match attempt {
                // Somebody writes to it all the time: it is written with the locks held.
                PATIENT.. => None,
                _ => match self.ready(node, &place, None)? {
                    None => return Ok(None),
                    ready => ready,
                },
            };
            let _names = folder.names.lock();
            if !node.is_at(&place) {
                continue;
            }
            let mut content = content.lock();
            let Content::Buffered(buffer) = &mut *content else {
                self.in_place_settled(node.ino);
                return Ok(None);
            };
            if ready.is_none() {
                let written = self.write_draft(node, buffer, &place, buffer.on_disk)?;
                self.flush_ready(&written)?;
                ready = Some(written);
            }
            let replaces = buffer.on_disk;
            let Some(mut ready) = ready.filter(|ready| ready.is_of(node, replaces)) else {
                continue;
            };
            self.stamp_again(node, buffer, &ready)?;
            ready.set_replaces(replaces);
            self.publish(&mut ready, folder, &place.name, || {
                self.settle(node, &mut content);
            })?;
            self.keep_times(&place.parent, folder);
            return Ok(Some(ready.unflushed([&place.parent])));
        }
        Err(Error::Stale)
    }

    /// Writes a file's content to a draft, and flushes that if it has to be on the medium before it gets its name, with
    /// no lock of a directory held. `replaced`: whether it will replace a file; `None`: the one that it changes,
    /// if any. `None` is returned for a file that has no uncommitted content.
    pub(super) fn ready(
        &self,
        node: &Node,
        place: &Place,
        replaced: Option<bool>,
    ) -> Result<Option<Ready>> {
        let Some(content) = node.content() else {
            return Ok(None);
        };
        let ready = {
            let mut content = content.lock();
            let Content::Buffered(buffer) = &mut *content else {
                self.in_place_settled(node.ino);
                return Ok(None);
            };
            let replaces = replaced.unwrap_or(buffer.on_disk);
            self.write_draft(node, buffer, place, replaces)?
        };
        self.flush_ready(&ready)?;
        Ok(Some(ready))
    }

    pub(super) fn flush_ready(&self, ready: &Ready) -> Result<()> {
        if ready.flush && ready.replaces {
            self.disk.flush_draft(&ready.draft)?;
        }
        Ok(())
    }

    /// A backing file with a buffer's content and an inode's attributes, ready for its name.
    pub(super) fn write_draft(
        &self,
        node: &Node,
        buffer: &mut Buffer,
        place: &Place,
        replaces: bool,
    ) -> Result<Ready> {
        let version = node.version.load(Ordering::Acquire);
        let kept = match buffer.own_xattrs {
            false => Some(self.user_xattrs(place.parent.folder(), &place.name)?),
            true => None,
        };
        let attr = node.meta.lock().attr;
        buffer.settle(Some((&self.disk, attr.mode)))?;
        let (draft, digest) = buffer.take_draft().ok_or(Error::Stale)?;
        let ready = Ready {
            draft,
            digest,
            version,
            attr,
            kept,
            flush: buffer.flush_wanted || self.config.durability == Durability::Power,
            replaces,
        };
        self.stamp(&ready, &ready.attr, buffer)?;
        Ok(ready)
    }

    fn stamp(&self, ready: &Ready, attr: &Attr, buffer: &Buffer) -> Result<()> {
        let stamp = Stamp {
            digest: ready.digest,
            size: buffer.bytes().len() as u64,
            mode: attr.mode,
            uid: attr.uid,
            gid: attr.gid,
            atime: attr.atime,
            mtime: attr.mtime,
            xattrs: ready.kept.as_ref().unwrap_or(&buffer.xattrs),
        };
        Ok(self.disk.finish(&ready.draft, &stamp)?)
    }

    /// Gives a draft the inode's attributes, if those were changed since it was written.
    pub(super) fn stamp_again(&self, node: &Node, buffer: &Buffer, ready: &Ready) -> Result<()> {
        let attr = node.meta.lock().attr;
        match attr == ready.attr {
            true => Ok(()),
            false => self.stamp(ready, &attr, buffer),
        }
    }

    /// Puts on the medium what has its name already. No lock is held meanwhile.
    pub(super) fn flush(&self, unflushed: &Unflushed) -> Result<()> {
        if let Some(draft) = &unflushed.draft {
            self.disk.flush_draft(draft)?;
        }
        for dir in &unflushed.folders {
            self.disk.flush_dir(&dir.folder().disk)?;
        }
        Ok(())
    }

    /// The directory changed when its file was made, or not at all if that was there before; perhaps its times were
    /// set since, by who copied it. That the file gets to the backing directory only now is not to be seen.
    fn keep_times(&self, parent: &Node, folder: &Folder) {
        let mtime = parent.meta.lock().attr.mtime;
        let kept = self.disk.set_times(
            &folder.disk,
            OsStr::new("."),
            known(parent),
            None,
            Some(mtime),
        );
        if let Err(error) = kept {
            log::debug!("a directory's time cannot be kept: {error}");
        }
    }

    /// Gives a draft its name, and has `in_tree` make the tree agree before anybody can tell. The caller holds the names.
    ///
    /// What replaces a file is on the medium before it does. What is new gets its name first, so that one
    /// flush of the filesystem's journal covers both; torn by a power cut, its digest gives it away.
    pub(super) fn publish(
        &self,
        ready: &mut Ready,
        folder: &Folder,
        name: &OsStr,
        in_tree: impl FnOnce(),
    ) -> Result<()> {
        let _replacing = folder.replacing();
        let how = if ready.replaces {
            Publish::Replace
        } else {
            Publish::New
        };
        let draft = &mut ready.draft;
        match self.disk.publish(draft, &folder.disk, name, how) {
            // Something that is not served, or was put there behind our back: a rename replaces it.
            Err(Errno::EXIST) => self
                .disk
                .publish(draft, &folder.disk, name, Publish::Replace)?,
            result => result?,
        }
        in_tree();
        Ok(())
    }

    /// Begins the backing file of a staged file, or goes on with it, so that the rename that is likely to
    /// follow finds it written. Called after the reply to a write, while the engine goes on; what fails here is
    /// tried again by the rename, and told to it.
    pub fn prepare(&self, ino: u64) {
        let Ok(node) = self.node(ino) else { return };
        if self.config.durability == Durability::Async
            || self.config.read_only
            || !self.is_temporary(&node)
            || node.broken().is_some()
        {
            return;
        }
        let mode = node.meta.lock().attr.mode;
        if let Some(content) = node.content()
            && let Content::Buffered(buffer) = &mut *content.lock()
            && let Err(error) = buffer.settle(Some((&self.disk, mode)))
        {
            log::debug!("inode {ino} is not begun on disk yet: {error}");
        }
    }

    /// The buffer's content is in the backing directory: it is committed content from now on.
    pub(super) fn settle(&self, node: &Node, content: &mut Content) {
        if let Some(buffer) = content.settle() {
            self.charge(node, buffer.bytes().len() as u64);
            node.verified.store(true, Ordering::Release);
            self.mark_committed(node);
            if let Some(place) = node.place() {
                self.learn_form(node, &place.name, buffer.bytes());
            }
            if self.memory.fits(buffer.bytes().len() as u64) {
                self.memory.insert(node.ino, buffer.bytes().into());
            }
        }
        if let Some(file) = node.file() {
            file.assert_consistent(content, node.place().is_some());
        }
        self.in_place_settled(node.ino);
        if self.is_over_budget() {
            self.sweeper.ask();
        }
    }

    fn user_xattrs(
        &self,
        folder: &Folder,
        name: &OsStr,
    ) -> Result<Vec<(std::ffi::OsString, Vec<u8>)>> {
        let mut kept = Vec::new();
        let keys = match self.disk.xattrs(&folder.disk, name) {
            Ok(keys) => keys,
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOENT) => return Ok(kept),
            Err(error) => return Err(error.into()),
        };
        for key in keys {
            if super::xattrs::is_user(&key) && !super::xattrs::is_ours(&key) {
                let value = self.disk.xattr(&folder.disk, name, &key)?;
                kept.push((key, value));
            }
        }
        Ok(kept)
    }
}
