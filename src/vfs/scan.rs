//! Reading in a backing directory.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::attr::{Attr, BLOCK};
use super::dir::{Dir, Folder};
use super::error::{Error, Result};
use super::file::File;
use super::node::{Body, Name, Node, Place};
use super::{ROOT, Vfs};
use crate::layout::PRIVATE_DIR;
use crate::tier::{Found, FoundKind, Way};

pub(super) fn attr_of(found: &Found) -> Attr {
    Attr {
        size: found.size,
        mode: found.mode,
        uid: found.uid,
        gid: found.gid,
        atime: found.atime,
        mtime: found.mtime,
        ctime: found.ctime,
    }
}

/// What a file of `size` bytes counts against the budget: whole blocks, as the backing filesystem stores it.
pub(super) fn charge(size: u64) -> u64 {
    size.div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// What is not served, since a stranger could have written it.
#[derive(Default)]
struct Strangers {
    count: u64,
    /// The first of them, with the reason.
    named: Vec<(String, String)>,
}

/// So many are named in the log; the others are counted.
const NAMED: usize = 8;

impl Strangers {
    fn note(&mut self, path: impl FnOnce() -> String, why: String) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push((path(), why));
        }
    }

    fn tell(&self) {
        for (path, why) in &self.named {
            log::warn!("{path:?} in the backing directory is not served: {why}");
        }
        let more = self.count - self.named.len() as u64;
        if more > 0 {
            log::warn!("{more} more in the backing directory are not served, for such reasons");
        }
    }
}

/// A file that was found.
struct Meeting {
    /// By the time of day.
    used: SystemTime,
    changed: SystemTime,
    /// Whether it was seen before, so that its times are to be believed.
    known: bool,
    node: Arc<Node>,
}

impl Vfs {
    /// Makes an inode for everything below `root`, by readdir and stat alone. What cannot be served
    /// (fifos, sockets, devices, other filesystems mounted inside) is named in the log and left alone. Gives up
    /// when the end of the service begins.
    pub(super) fn scan(&self, root: &Dir, device: u64) -> Result<()> {
        let (inside, mode) = self.disk.root_way()?;
        if self.config.allow_other {
            root.meta.lock().attr.mode = mode;
        }
        let mut todo = VecDeque::from([(root.clone(), inside)]);
        let mut strangers = Strangers::default();
        let mut met = Vec::new();
        while let Some((parent, way)) = todo.pop_front() {
            let folder = parent.folder();
            let listed = match self.disk.list(&folder.disk, &self.about.stop) {
                Ok(listed) => listed,
                Err(_) if self.about.stop.has_begun() => return Err(Error::Ended),
                Err(error) if parent.ino != ROOT => {
                    log::warn!(
                        "{:?} is served as empty: it cannot be read ({error})",
                        self.path(&parent)
                    );
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for found in listed {
                if self.about.stop.has_begun() {
                    return Err(Error::Ended);
                }
                if parent.ino == ROOT && found.name == PRIVATE_DIR {
                    continue;
                }
                let mode = match self.fitting(folder, &found, way) {
                    Ok(mode) => mode,
                    Err(stranger) => {
                        strangers.note(|| self.path_in(&parent, &found.name), stranger);
                        continue;
                    }
                };
                let Some(body) = self.body_of(folder, &found, device) else {
                    log::warn!(
                        "{:?} in the backing directory is not served: it is neither file, directory nor link",
                        found.name
                    );
                    continue;
                };
                let node = self.adopt(
                    &parent,
                    Name::from(found.name.as_os_str()),
                    Attr {
                        mode,
                        ..attr_of(&found)
                    },
                    body,
                );
                match node.kind() {
                    super::Kind::Directory => {
                        let way = self.disk.way(&folder.disk, &found, way);
                        todo.extend(Dir::of(&node).map(|dir| (dir, way)));
                    }
                    super::Kind::File => {
                        node.standing.was_there();
                        self.charge(&node, self.size_on_disk(&found));
                        met.push(Meeting {
                            used: found.atime.max(found.mtime),
                            changed: found.mtime,
                            known: self.met.get().is_some_and(|met| met.knows(&found)),
                            node,
                        });
                    }
                    super::Kind::Symlink => {}
                }
            }
        }
        self.meet(met);
        strangers.tell();
        self.counters.not_served(strangers.count);
        Ok(())
    }

    /// The mode with which something found is served, unless a stranger could have written it. A link has no seal:
    /// it could give one entry another's name.
    fn fitting(
        &self,
        folder: &Folder,
        found: &Found,
        way: Way,
    ) -> std::result::Result<u32, String> {
        if self.disk.is_sealed() && matches!(found.kind, FoundKind::Symlink(_)) {
            return Err("a symbolic link cannot be sealed".to_owned());
        }
        self.disk
            .judge(&folder.disk, found, way, self.config.allow_other)
            .map_err(|stranger| stranger.to_string())
    }

    fn path_in(&self, parent: &Node, name: &OsStr) -> String {
        let name = name.to_string_lossy();
        match parent.ino {
            ROOT => name.into_owned(),
            _ => format!("{}/{name}", self.path(parent)),
        }
    }

    /// What counts of a found file: no more than it takes on disk, if it is larger than any that can be stored here.
    fn size_on_disk(&self, found: &Found) -> u64 {
        if found.size > self.config.max_entry {
            found.size.min(found.allocated)
        } else {
            found.size
        }
    }

    /// Files that are met for the first time are as young as that, in the order in which they were used before.
    fn meet(&self, mut met: Vec<Meeting>) {
        met.sort_unstable_by_key(|file| (file.used, file.node.ino));
        let count = met.len() as u64;
        let now = self.moment();
        let first = self.met.get().map_or(now, |met| self.moment_of(met.first));
        for (place, file) in (0..).zip(met) {
            let used = match file.known {
                true => self.moment_of(file.used).max(first),
                false => now,
            };
            // Their order is kept, a nanosecond apart.
            let used = used - Duration::from_nanos(count - place);
            file.node.standing.found(used, self.moment_of(file.changed));
        }
    }

    fn body_of(&self, folder: &Folder, found: &Found, device: u64) -> Option<Body> {
        match &found.kind {
            FoundKind::File => Some(Body::File(File::clean(&self.used))),
            FoundKind::Symlink(target) => Some(Body::Symlink(target.as_os_str().into())),
            FoundKind::Directory if found.id.device == device => {
                let disk = self.disk.directory(&folder.disk, found);
                if self.config.allow_other {
                    self.disk.note_default(&folder.disk, found, &disk);
                }
                Some(Body::Directory(Box::new(Folder::new(disk))))
            }
            FoundKind::Directory | FoundKind::Other => None,
        }
    }

    /// Makes an inode and enters it in its directory.
    pub(super) fn adopt(&self, parent: &Dir, name: Name, attr: Attr, body: Body) -> Arc<Node> {
        let place = Place {
            parent: parent.clone(),
            name: Arc::clone(&name),
        };
        let counted = match body {
            Body::Directory(_) | Body::Symlink(_) => Some(self.folders_and_links.found(1)),
            Body::File(_) | Body::Snapshot(_) | Body::Told(_) => None,
        };
        let node = Node::new(self.fresh_ino(), attr, Some(place), body).counted(counted);
        let node = Arc::new(node);
        self.mark_committed(&node);
        self.nodes.insert(node.ino, Arc::clone(&node));
        let children = &parent.folder().children;
        children.write().insert(name, Arc::clone(&node));
        node
    }

    /// Counts a committed file of `size` bytes against the budget, in place of what it counted before.
    pub(super) fn charge(&self, node: &Node, size: u64) {
        if let Some(file) = node.file() {
            file.on_disk.set(Some(charge(size)));
        }
        self.count_apart(node);
    }

    /// The file on disk that `from` had under its name is `to`'s from now on.
    pub(super) fn hand_over(&self, from: &Node, to: &Node) {
        if let (Some(from), Some(to)) = (from.file(), to.file()) {
            from.on_disk.hand_over(&to.on_disk);
        }
        self.count_apart(from);
        self.count_apart(to);
    }

    /// Takes a file off the budget: it is not on disk any more.
    pub(super) fn discharge(&self, node: &Node) {
        if let Some(file) = node.file() {
            file.on_disk.set(None);
        }
        self.count_apart(node);
    }

    /// Whether `name` in directory `parent` is the hidden folder.
    pub(super) fn is_hidden(&self, parent: u64, name: &OsStr) -> bool {
        parent == ROOT && name == PRIVATE_DIR
    }
}
