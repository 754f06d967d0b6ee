//! Directories of the backing directory: known by what they are, opened on demand.
//!
//! A descriptor for each of them would let whoever may make directories use up the daemon's limit of open
//! files. So a [`Directory`] is a place (a parent and a name) with an identity (device and inode). It is
//! opened when it is used, from the root or from an ancestor that is open, without following any link
//! (`openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`), and what was opened must have that identity.
//! The descriptors used last stay open. A few descriptors are kept in reserve: they are given up when the
//! system has no more for a commit.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use quick_cache::sync::Cache;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};
use rustix::process::Resource;

/// Descriptors kept for directories at the most.
const MOST: u64 = 128;

/// Descriptors that a daemon needs for all else: devices, sources of events, files being committed.
const ELSEWHERE: u64 = 96;

/// Descriptors in reserve.
const RESERVE: usize = 8;

/// The longest path that is handed to the system in one piece (its own limit, PATH_MAX, is 4096).
const LONGEST_PATH: usize = 4_000;

const OPEN: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What a file or directory is on its filesystem, whatever its name: device and inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id {
    /// The filesystem.
    pub device: u64,
    /// The number in it.
    pub inode: u64,
}

impl Id {
    pub(super) fn of(stat: &rustix::fs::Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        }
    }
}

/// A directory of the backing directory. Clones are the same directory.
#[derive(Debug, Clone)]
pub struct Directory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Its number among the descriptors; never used again.
    serial: u64,
    id: Id,
    /// `None`: the root.
    at: Mutex<Option<(Directory, OsString)>>,
    /// See [`Directory::ceiling`].
    ceiling: AtomicU32,
    all: Arc<Descriptors>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.all.open.remove(&self.serial);
    }
}

impl Directory {
    /// What it is.
    pub fn id(&self) -> Id {
        self.0.id
    }

    /// Its path from the root, without a leading slash.
    pub(super) fn path(&self) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = self.clone();
        while let Some((parent, name)) = at.place() {
            names.push(name);
            at = parent;
        }
        let names: Vec<&[u8]> = names.iter().rev().map(|name| name.as_bytes()).collect();
        names.join(&b'/')
    }

    /// The permission bits that what is made in it may have at the most.
    pub fn ceiling(&self) -> u32 {
        self.0.ceiling.load(Ordering::Relaxed)
    }

    pub(super) fn set_ceiling(&self, bits: u32) {
        self.0.ceiling.store(bits, Ordering::Relaxed);
    }

    fn place(&self) -> Option<(Self, OsString)> {
        self.0.at.lock().clone()
    }

    /// The directory found as `name` in this one, which is `id`. Nothing is opened.
    pub(super) fn child(&self, name: &OsStr, id: Id) -> Self {
        let all = &self.0.all;
        Self(Arc::new(Inner {
            serial: all.next.fetch_add(1, Ordering::Relaxed),
            id,
            at: Mutex::new(Some((self.clone(), name.to_owned()))),
            // A list for what is made in a directory is passed on to directories.
            ceiling: AtomicU32::new(self.ceiling()),
            all: Arc::clone(all),
        }))
    }

    /// It has been renamed. The caller holds [`Descriptors::moving`].
    pub(super) fn moved(&self, parent: &Self, name: &OsStr) {
        let mut at = self.0.at.lock();
        if at.is_some() {
            *at = Some((parent.clone(), name.to_owned()));
        }
    }
}

/// The open directories of one backing directory.
#[derive(Debug)]
pub(super) struct Descriptors {
    root: Arc<OwnedFd>,
    open: Cache<u64, Arc<OwnedFd>>,
    limit: usize,
    next: AtomicU64,
    /// Held for reading while a path is walked, for writing while a directory changes its place: else the one
    /// would not be found that is just being moved.
    moving: RwLock<()>,
    spare: Mutex<Vec<OwnedFd>>,
    /// Whether the reserve was given up.
    lent: AtomicBool,
    /// Whether the system has `openat2`.
    beneath: AtomicBool,
}

impl Descriptors {
    /// For the open directory `root`, within this process's limit of open files.
    pub(super) fn new(root: OwnedFd) -> Result<(Arc<Self>, Directory)> {
        let id = Id::of(&rustix::fs::fstat(&root)?);
        let allowed = rustix::process::getrlimit(Resource::Nofile).current;
        let limit = allowed.map_or(MOST, |allowed| {
            (allowed.saturating_sub(ELSEWHERE) / 2).clamp(8, MOST)
        }) as usize;
        let all = Arc::new(Self {
            root: Arc::new(root),
            open: Cache::new(limit),
            limit,
            next: AtomicU64::new(1),
            moving: RwLock::new(()),
            spare: Mutex::new(Vec::new()),
            lent: AtomicBool::new(false),
            beneath: AtomicBool::new(true),
        });
        all.refill();
        let root = Directory(Arc::new(Inner {
            serial: 0,
            id,
            at: Mutex::new(None),
            ceiling: AtomicU32::new(0o7777),
            all: Arc::clone(&all),
        }));
        Ok((all, root))
    }

    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Descriptors kept open for directories now, and at the most.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.open.len() as u64, self.limit as u64)
    }

    /// No directory changes its place while the guard is held.
    pub(super) fn still(&self) -> RwLockReadGuard<'_, ()> {
        // Whoever holds it may ask for it again.
        self.moving.read_recursive()
    }

    /// To be held while a directory is renamed on disk and [`Directory::moved`] is called.
    pub(super) fn moving(&self) -> RwLockWriteGuard<'_, ()> {
        self.moving.write()
    }

    /// An open descriptor of `dir`.
    ///
    /// # Errors
    /// ESTALE if something else has its place; else those of the system.
    pub(super) fn get(&self, dir: &Directory) -> Result<Arc<OwnedFd>> {
        match self.cached(dir) {
            Some(fd) => Ok(fd),
            None => {
                let _still = self.still();
                self.reopen(dir)
            }
        }
    }

    /// As [`Descriptors::get`], for a caller that holds [`Descriptors::moving`].
    pub(super) fn get_moving(&self, dir: &Directory) -> Result<Arc<OwnedFd>> {
        self.cached(dir).map_or_else(|| self.reopen(dir), Ok)
    }

    fn cached(&self, dir: &Directory) -> Option<Arc<OwnedFd>> {
        match dir.0.serial {
            0 => Some(Arc::clone(&self.root)),
            serial => self.open.get(&serial),
        }
    }

    fn reopen(&self, dir: &Directory) -> Result<Arc<OwnedFd>> {
        let mut names = Vec::new();
        let mut at = dir.clone();
        let base = loop {
            let Some((parent, name)) = at.place() else {
                break Arc::clone(&self.root);
            };
            names.push(name);
            if let Some(fd) = self.cached(&parent) {
                break fd;
            }
            at = parent;
        };
        names.reverse();
        let fd = Arc::new(self.opening(|| self.walk(&base, &names))?);
        if Id::of(&rustix::fs::fstat(&*fd)?) != dir.0.id {
            return Err(Errno::STALE);
        }
        self.open.insert(dir.0.serial, Arc::clone(&fd));
        Ok(fd)
    }

    fn walk(&self, base: &OwnedFd, names: &[OsString]) -> Result<OwnedFd> {
        let length: usize = names.iter().map(|name| name.len() + 1).sum();
        if names.len() > 1 && length < LONGEST_PATH && self.beneath.load(Ordering::Relaxed) {
            let joined: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
            let path = OsString::from_vec(joined.join(&b'/'));
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            match rustix::fs::openat2(base, path, OPEN, Mode::empty(), resolve) {
                // Linux before 5.6, or a container's filter.
                Err(Errno::NOSYS | Errno::PERM) => self.beneath.store(false, Ordering::Relaxed),
                // A rename elsewhere made the system unsure that it is beneath.
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        let mut at: Option<OwnedFd> = None;
        for name in names {
            let from = at.as_ref().unwrap_or(base);
            at = Some(rustix::fs::openat(from, name, OPEN, Mode::empty())?);
        }
        at.ok_or(Errno::NOENT)
    }

    /// Runs something that opens a file. Where the limit of open files is reached, directories are closed and
    /// then the reserve is lent.
    pub(super) fn opening<T>(&self, open: impl Fn() -> Result<T>) -> Result<T> {
        let is_spent = |result: &Result<T>| matches!(result, Err(Errno::MFILE | Errno::NFILE));
        let first = open();
        if !is_spent(&first) {
            if self.lent.load(Ordering::Relaxed) {
                self.refill();
            }
            return first;
        }
        self.open.clear();
        let second = open();
        if !is_spent(&second) {
            return second;
        }
        let mut spare = self.spare.lock();
        spare.clear();
        self.lent.store(true, Ordering::Relaxed);
        open()
    }

    /// Fills the reserve up again, as far as the limit of open files allows.
    fn refill(&self) {
        let mut spare = self.spare.lock();
        self.lent.store(false, Ordering::Relaxed);
        while spare.len() < RESERVE {
            match self.root.as_fd().try_clone_to_owned() {
                Ok(fd) => spare.push(fd),
                Err(_) => {
                    self.lent.store(true, Ordering::Relaxed);
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn open(path: &std::path::Path) -> (Arc<Descriptors>, Directory) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        Descriptors::new(rustix::fs::open(path, flags, Mode::empty()).unwrap()).unwrap()
    }

    fn child(all: &Descriptors, dir: &Directory, name: &str) -> Directory {
        let stat = rustix::fs::statat(
            &*all.get(dir).unwrap(),
            name,
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        );
        dir.child(OsStr::new(name), Id::of(&stat.unwrap()))
    }

    #[test]
    fn a_directory_that_was_closed_is_found_again_at_any_depth() {
        let folder = tempfile::tempdir().unwrap();
        let (all, root) = open(folder.path());
        let name = "n".repeat(200);
        let mut path = folder.path().to_owned();
        let mut dir = root;
        let mut chain = Vec::new();
        // Deeper than any path may be long.
        for _ in 0..40 {
            rustix::fs::mkdirat(&*all.get(&dir).unwrap(), name.as_str(), Mode::RWXU).unwrap();
            dir = child(&all, &dir, &name);
            chain.push(dir.clone());
            path.push(&name);
        }
        for beneath in [true, false] {
            all.beneath.store(beneath, Ordering::Relaxed);
            for dir in chain.iter().rev() {
                all.open.clear();
                let fd = all.get(dir).unwrap();
                assert_eq!(Id::of(&rustix::fs::fstat(&*fd).unwrap()), dir.id());
            }
        }
    }

    #[test]
    fn what_took_a_directorys_place_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let (all, root) = open(folder.path());
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::create_dir_all(at("other/b")).unwrap();
        let a = child(&all, &root, "a");
        let b = child(&all, &a, "b");
        for beneath in [true, false] {
            all.beneath.store(beneath, Ordering::Relaxed);
            std::fs::rename(at("a"), at("kept")).unwrap();
            // A link to where it is now, a link elsewhere, and another directory.
            for target in [at("kept"), at("other"), "/etc".into()] {
                symlink(target, at("a")).unwrap();
                all.open.clear();
                assert!(all.get(&a).is_err());
                assert!(all.get(&b).is_err());
                std::fs::remove_file(at("a")).unwrap();
            }
            std::fs::rename(at("other"), at("a")).unwrap();
            all.open.clear();
            assert_eq!(all.get(&a).unwrap_err(), Errno::STALE);
            assert_eq!(all.get(&b).unwrap_err(), Errno::STALE);
            std::fs::rename(at("a"), at("other")).unwrap();
            std::fs::rename(at("kept"), at("a")).unwrap();
            all.open.clear();
            all.get(&b).unwrap();
        }
    }

    #[test]
    fn a_bounded_number_stays_open_and_a_dropped_directory_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let (all, root) = open(folder.path());
        let dirs: Vec<_> = (0..1_000)
            .map(|number| {
                let name = number.to_string();
                std::fs::create_dir(folder.path().join(&name)).unwrap();
                let dir = child(&all, &root, &name);
                all.get(&dir).unwrap();
                dir
            })
            .collect();
        let (open, limit) = all.counts();
        assert!(open <= limit && limit <= MOST, "{open} of {limit}");
        drop(dirs);
        assert_eq!(all.counts().0, 0);
    }
}
