//! A cache directory as engines use it: listed, read, and written by a temporary file and a rename.
//!
//! Every file is reached from a descriptor of the directory, and no symbolic link is followed below it: this may run
//! as root on a directory that belongs to somebody else. The descriptor is opened for each operation, as one that is
//! held would keep a mount from being unmounted; what was mounted or unmounted since is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Timespec, Timestamps,
};
use rustix::io::Errno;

use super::envelope::hex;
use super::manifest::{MOST_ENTRY, PackEntry, key_and_version};
use crate::format::engine::HEAD_LEN;
use crate::format::engine::Kind;
use crate::format::{Engine, Engines, Entry, NameKind};
use crate::layout::{BY_INODE, PRIVATE_DIR};

/// How deep folders are looked into: Mako's and Python's lie as templates and packages do.
const DEEPEST: usize = 32;

/// A cache directory.
#[derive(Debug)]
pub struct Local {
    dir: PathBuf,
    /// The filesystem it is on.
    device: u64,
    engines: Engines,
    /// What a new file gets: the mode, and the owner if this process may choose it.
    mode: Mode,
    owner: Option<(u32, u32)>,
}

/// The names of a cache's entries.
#[derive(Debug, Default)]
pub struct Names {
    /// Their paths, from the root, and their inodes' numbers.
    pub paths: BTreeMap<String, u64>,
    /// The version tags in the names of kida's and of the import system's entries.
    pub versions: BTreeSet<String>,
}

/// An entry that was read.
#[derive(Debug)]
pub struct Found {
    /// What a manifest says of it; size and hash are not set yet.
    pub entry: PackEntry,
    /// Its content.
    pub content: Vec<u8>,
}

/// What became of an entry that was to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It is there now.
    Yes,
    /// One of its name was there, and stays.
    Kept,
}

/// Gets a folder, and the files in it, each with its inode's number.
type Each<'e> = &'e mut dyn FnMut(&Path, &[(OsString, u64)]);

impl Local {
    /// Opens a cache directory, which is created if it is missing.
    ///
    /// # Errors
    /// When it cannot be created or opened.
    pub fn create(dir: &Path, engines: Engines) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        Self::open(dir, engines)
    }

    /// Opens a cache directory.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(dir: &Path, engines: Engines) -> io::Result<Self> {
        let (_, status) = open_root(dir)?;
        // Whoever may list the directory may read what is in it; nobody but its owner writes.
        let mode = Mode::RUSR | Mode::WUSR | Mode::from_raw_mode(status.st_mode & 0o044);
        let owner = (status.st_uid, status.st_gid);
        let is_root = rustix::process::geteuid().is_root();
        Ok(Self {
            dir: dir.to_owned(),
            device: status.st_dev,
            engines,
            mode,
            owner: is_root.then_some(owner),
        })
    }

    /// The directory, as it was named.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How entries are named.
    pub fn engines(&self) -> &Engines {
        &self.engines
    }

    /// A descriptor of the directory, if it is still on the filesystem that it was on.
    fn root(&self) -> Result<OwnedFd, Errno> {
        let (root, status) = open_root(&self.dir)?;
        if status.st_dev == self.device {
            Ok(root)
        } else {
            Err(Errno::STALE)
        }
    }

    /// The folders of the cache, each from the root, the root first as an empty path.
    ///
    /// # Errors
    /// When the root cannot be listed.
    pub fn folders(&self) -> io::Result<Vec<PathBuf>> {
        let mut folders = Vec::new();
        self.walk(&mut |folder, _| folders.push(folder.to_owned()))?;
        Ok(folders)
    }

    /// The names of all entries. Nothing is read, so nothing counts as used.
    ///
    /// # Errors
    /// When the root cannot be listed.
    pub fn names(&self) -> io::Result<Names> {
        let mut names = Names::default();
        self.walk(&mut |folder, files| {
            for (file, inode) in files {
                let Some(path) = folder.join(file).to_str().map(str::to_owned) else {
                    continue;
                };
                let NameKind::Entry { engine, .. } = self.engines.by_name(Path::new(&path)) else {
                    continue;
                };
                if matches!(engine, Engine::Kida | Engine::Importlib) {
                    let (_, version) = key_and_version(&self.engines, engine, &path, &[]);
                    if !version.is_empty() && !names.versions.contains(&version) {
                        names.versions.insert(version);
                    }
                }
                names.paths.insert(path, *inode);
            }
        })?;
        Ok(names)
    }

    /// Goes through all folders.
    fn walk(&self, each: Each<'_>) -> io::Result<()> {
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let is_root = folder.as_os_str().is_empty();
            let opened = if is_root {
                self.root()
            } else {
                self.folder(&folder)
            };
            let listing = match opened.and_then(Dir::new) {
                Ok(listing) => listing,
                Err(error) if is_root => return Err(error.into()),
                // It has gone, or is not for this user.
                Err(_) => continue,
            };
            let mut files = Vec::new();
            for file in listing {
                let file = match file {
                    Ok(file) => file,
                    Err(error) if is_root => return Err(error.into()),
                    Err(_) => break,
                };
                let name = OsString::from_vec(file.file_name().to_bytes().to_vec());
                if name == "." || name == ".." || (is_root && name == PRIVATE_DIR) {
                    continue;
                }
                let path = folder.join(&name);
                let kind = match file.file_type() {
                    FileType::Unknown => self.status(&path).map_or(FileType::Unknown, |status| {
                        FileType::from_raw_mode(status.st_mode)
                    }),
                    kind => kind,
                };
                match kind {
                    FileType::RegularFile => files.push((name, file.ino())),
                    FileType::Directory if path.components().count() < DEEPEST => {
                        folders.push(path);
                    }
                    _ => {}
                }
            }
            each(&folder, &files);
        }
        Ok(())
    }

    /// Opens a folder below the root, through no link.
    fn folder(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.open_below(path, flags)
    }

    fn open_below(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let root = self.root()?;
        let opened = rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve);
        if opened.as_ref().err() != Some(&Errno::NOSYS) {
            return opened;
        }
        // A container's filter that does not know the call: step by step.
        let mut at = root;
        let mut names = path.iter().peekable();
        while let Some(name) = names.next() {
            let step = match names.peek() {
                Some(_) => OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                None => flags,
            };
            at = rustix::fs::openat(&at, name, step | OFlags::NOFOLLOW, Mode::empty())?;
        }
        Ok(at)
    }

    fn status(&self, path: &Path) -> Result<Stat, Errno> {
        rustix::fs::statat(self.root()?, path, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Reads an entry; `None` if it is gone, too large, or not of its engine's form, which is the engine's own affair.
    /// On a mount and on a plain directory alike this does not count as a use of the entry, where this user may read
    /// so.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: &str, inode: u64) -> io::Result<Option<Found>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let below = |flags| self.open_below(Path::new(path), flags);
        let opened = self
            .by_inode(inode)
            .or_else(|| below(flags | OFlags::NOATIME).ok())
            .map_or_else(|| below(flags), Ok);
        let file = match opened {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let status = rustix::fs::fstat(&file)?;
        let is_file = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile;
        let size = u64::try_from(status.st_size).unwrap_or(u64::MAX);
        if !is_file || size > MOST_ENTRY {
            return Ok(None);
        }
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        file.take(MOST_ENTRY + 1).read_to_end(&mut content)?;
        if content.len() as u64 > MOST_ENTRY {
            return Ok(None);
        }
        let Some(engine) = self.engine_of(path, &content) else {
            return Ok(None);
        };
        let head = &content[..content.len().min(HEAD_LEN)];
        let (key, version) = key_and_version(&self.engines, engine, path, head);
        let entry = PackEntry {
            path: path.to_owned(),
            size: 0,
            sha256: String::new(),
            mtime: status
                .st_mtime
                .saturating_mul(1_000_000_000)
                .saturating_add(i64::try_from(status.st_mtime_nsec).unwrap_or_default()),
            engine: engine.as_str().to_owned(),
            version,
            key,
        };
        Ok(Some(Found { entry, content }))
    }

    /// Opens a file of a mount by its inode's number, as its owner may, so that it is not taken for a use.
    fn by_inode(&self, inode: u64) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let hidden = Path::new(PRIVATE_DIR).join(BY_INODE);
        let numbers = self.open_below(&hidden, flags).ok()?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&numbers, inode.to_string(), flags, Mode::empty()).ok()
    }

    /// [`engine_of`] for the engines of this cache.
    pub fn engine_of(&self, path: &str, content: &[u8]) -> Option<Engine> {
        engine_of(&self.engines, path, content)
    }

    /// Commits an entry as an engine does: a temporary file beside it, then a rename. What is there already stays.
    ///
    /// A module of Mako's gets the time it had, which Mako compares with its template's; everything else is as young as
    /// its commit.
    ///
    /// # Errors
    /// When it cannot be written, as on a full disk. No temporary file is left then.
    pub fn commit(&self, entry: &PackEntry, content: &[u8]) -> io::Result<Committed> {
        let path = Path::new(&entry.path);
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::from(Errno::INVAL))?;
        let parent = path.parent().unwrap_or(Path::new(""));
        let folder = self.make_folders(parent)?;
        let is_there = || rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if is_there() {
            return Ok(Committed::Kept);
        }
        let (temporary, file) = self.create_beside(&folder, name, &entry.engine)?;
        let done = self
            .fill(file, entry, content)
            .and_then(|()| self.rename(&folder, &temporary, name, is_there));
        if !matches!(done, Ok(Committed::Yes)) {
            // Whatever is the matter, it is of no use to anybody.
            let _ = rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty());
        }
        done
    }

    fn fill(&self, mut file: File, entry: &PackEntry, content: &[u8]) -> io::Result<()> {
        file.write_all(content)?;
        rustix::fs::fchmod(&file, self.mode)?;
        if let Some((uid, gid)) = self.owner {
            let uid = rustix::process::Uid::from_raw(uid);
            let gid = rustix::process::Gid::from_raw(gid);
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        if entry.engine == Engine::Mako.as_str() {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            let then = Duration::from_nanos(u64::try_from(entry.mtime).unwrap_or_default());
            let time = then.min(now);
            let stamp = Timespec {
                tv_sec: i64::try_from(time.as_secs()).unwrap_or_default(),
                tv_nsec: time.subsec_nanos().into(),
            };
            let times = Timestamps {
                last_access: stamp,
                last_modification: stamp,
            };
            rustix::fs::futimens(&file, &times)?;
        }
        Ok(())
    }

    fn rename(
        &self,
        folder: &OwnedFd,
        temporary: &str,
        name: &std::ffi::OsStr,
        is_there: impl Fn() -> bool,
    ) -> io::Result<Committed> {
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(folder, temporary, folder, name, flags) {
            Ok(()) => return Ok(Committed::Yes),
            Err(Errno::EXIST) => return Ok(Committed::Kept),
            // NFS and others do not know it.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
        if is_there() {
            return Ok(Committed::Kept);
        }
        rustix::fs::renameat(folder, temporary, folder, name)?;
        Ok(Committed::Yes)
    }

    /// Opens the folder of an entry; what is missing is made, as engines do.
    fn make_folders(&self, parent: &Path) -> io::Result<OwnedFd> {
        if parent.as_os_str().is_empty() {
            return Ok(self.root()?);
        }
        match self.folder(parent) {
            Err(Errno::NOENT) => {}
            opened => return Ok(opened?),
        }
        let mut at = self.root()?;
        let mode = Mode::from_raw_mode(rustix::fs::fstat(&at)?.st_mode & 0o755);
        for name in parent.iter() {
            match rustix::fs::mkdirat(&at, name, mode | Mode::RWXU) {
                Ok(()) => {
                    if let Some((uid, gid)) = self.owner {
                        let uid = rustix::process::Uid::from_raw(uid);
                        let gid = rustix::process::Gid::from_raw(gid);
                        let flags = AtFlags::SYMLINK_NOFOLLOW;
                        rustix::fs::chownat(&at, name, Some(uid), Some(gid), flags)?;
                    }
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            at = rustix::fs::openat(&at, name, flags, Mode::empty())?;
        }
        Ok(at)
    }

    /// Creates a temporary file of the engine's own kind, which a mount stages and other tools know.
    fn create_beside(
        &self,
        folder: &OwnedFd,
        name: &std::ffi::OsStr,
        engine: &str,
    ) -> io::Result<(String, File)> {
        const ATTEMPTS: usize = 100;
        let name = name.to_str().ok_or_else(|| io::Error::from(Errno::INVAL))?;
        for _ in 0..ATTEMPTS {
            let temporary = temporary_name(engine, name);
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR;
            match rustix::fs::openat(folder.as_fd(), &temporary, flags, mode) {
                Ok(file) => return Ok((temporary, file.into())),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::EXIST.into())
    }
}

fn open_root(dir: &Path) -> Result<(OwnedFd, Stat), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(dir, flags, Mode::empty())?;
    let status = rustix::fs::fstat(&root)?;
    Ok((root, status))
}

/// Whose entry a file is, by its name and its form; `None`: nobody's, or not whole.
pub fn engine_of(engines: &Engines, path: &str, content: &[u8]) -> Option<Engine> {
    let head = &content[..content.len().min(HEAD_LEN)];
    let Kind::Entry(engine) = engines.recognise(Path::new(path), head) else {
        return None;
    };
    let is_whole = engine != Engine::Kida || Entry::parse(content).is_ok();
    is_whole.then_some(engine)
}

/// A name that the engine itself could have chosen.
fn temporary_name(engine: &str, name: &str) -> String {
    let word = word();
    match engine {
        "kida" => format!("{name}.{word}.tmp"),
        "jinja2" => format!("{name}{word}.tmp"),
        "importlib" => format!("{name}.{}", 10_000_000_000 + random() % 80_000_000_000),
        _ => format!("tmp{word}"),
    }
}

fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}

/// Eight random hex digits.
fn word() -> String {
    hex(&random().to_le_bytes()[..4])
}

#[cfg(test)]
mod tests;
