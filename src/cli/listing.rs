//! What is in a cache: the rows that `kidafs ls`, `verify` and `warm` go through.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};

use super::target::Target;
use crate::format::{Format, Pattern};
use crate::layout::{BY_INODE, ENTRIES_JSONL, PRIVATE_DIR};
use crate::stats::{EntryRow, Place, time_of};

/// A path that a mount tells, if it stays beneath the mount: whoever made it may have written anything.
pub(super) fn beneath(path: impl Into<PathBuf>) -> Option<PathBuf> {
    let path = path.into();
    let normal = |part| matches!(part, std::path::Component::Normal(_));
    (!path.as_os_str().is_empty() && path.components().all(normal)).then_some(path)
}

/// Removes a file beneath a cache's root, however the folders on the way are exchanged meanwhile.
pub(super) fn remove(root: &Path, path: &Path) -> io::Result<()> {
    let outside = || io::Error::other("it is not beneath the directory");
    let path = beneath(path).ok_or_else(outside)?;
    let name = path.file_name().ok_or_else(outside)?;
    let open = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, open, Mode::empty())?;
    let folder = match path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        Some(parent) => {
            let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
            rustix::fs::openat2(&root, parent, open, Mode::empty(), within)?
        }
        None => root,
    };
    Ok(rustix::fs::unlinkat(&folder, name, AtFlags::empty())?)
}

/// A file in a cache.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// From the cache's root.
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// When it was committed, or last written.
    pub(super) modified: SystemTime,
    /// When it was last looked up (a mount) or read (a plain directory).
    pub(super) used: SystemTime,
    /// What its name says; `None` if it does not fit the pattern.
    pub(super) name: Option<Name>,
    /// `legacy`, `v2`, `v3` or `v4`.
    pub(super) format: Option<String>,
    /// `None` on a plain directory.
    pub(super) tier: Option<Place>,
    /// Whose entry it is, the file that it was made of and what that says of it, as far as the daemon knows.
    pub(super) engine: Option<String>,
    pub(super) source: Option<String>,
    pub(super) verdict: Option<String>,
    /// Whether a newer source of the same folder, version and name is there.
    pub(super) superseded: bool,
}

/// The parts of an entry's file name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub(super) version: String,
    pub(super) template: String,
    pub(super) source_hash: String,
    pub(super) context_hash: Option<String>,
}

impl Name {
    pub(super) fn parse(pattern: &Pattern, path: &Path) -> Option<Self> {
        let parts = pattern.parse_name(path.file_name()?)?;
        Some(Self {
            version: parts.version.to_owned(),
            template: parts.name.to_owned(),
            source_hash: parts.source_hash.to_owned(),
            context_hash: parts.context_hash.map(str::to_owned),
        })
    }
}

/// The files of a cache, sorted by path. On a mount they come from the daemon's own list, because
/// looking at a file is what the daemon counts as its use.
///
/// # Errors
/// When a folder cannot be read.
pub(super) fn rows(target: &Target, pattern: &Pattern) -> anyhow::Result<Vec<Row>> {
    let mut rows = match target.hidden_lines::<EntryRow>(ENTRIES_JSONL)? {
        Some(listed) => listed
            .into_iter()
            .filter_map(|entry| from_daemon(entry, pattern))
            .collect(),
        None => from_directory(target, pattern)?,
    };
    rows.sort_by(|a, b| a.path.cmp(&b.path));
    mark_superseded(&mut rows);
    Ok(rows)
}

fn from_daemon(entry: EntryRow, pattern: &Pattern) -> Option<Row> {
    let path = beneath(entry.path)?;
    Some(Row {
        name: Name::parse(pattern, &path),
        path,
        size: entry.size_bytes,
        modified: time_of(entry.committed_unix_seconds),
        used: time_of(entry.used_unix_seconds),
        format: entry.format,
        tier: Some(entry.tier),
        engine: entry.engine,
        source: entry.source,
        verdict: entry.verdict,
        superseded: false,
    })
}

fn from_directory(target: &Target, pattern: &Pattern) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for file in files(&target.dir)? {
        let name = Name::parse(pattern, &file.path);
        let format = name
            .as_ref()
            .and_then(|_| format_of(&target.dir.join(&file.path)))
            .map(|format| format.to_string());
        rows.push(Row {
            name,
            format,
            size: file.status.len(),
            modified: file.status.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            used: file.status.accessed().unwrap_or(SystemTime::UNIX_EPOCH),
            path: file.path,
            tier: None,
            engine: None,
            source: None,
            verdict: None,
            superseded: false,
        });
    }
    Ok(rows)
}

/// A regular file below a cache's root.
pub(super) struct Found {
    /// From the root.
    pub(super) path: PathBuf,
    pub(super) status: fs::Metadata,
}

/// All regular files below `dir`, to any depth, without kidafs's own. Symbolic links are not
/// followed, and what vanishes meanwhile is left out.
///
/// # Errors
/// When a folder cannot be read.
pub(super) fn files(dir: &Path) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = dir.join(&folder);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if vanished(&error) && !folder.as_os_str().is_empty() => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot list {}", path.display()));
            }
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", path.display()))?;
            let relative = folder.join(entry.file_name());
            if relative == OsStr::new(PRIVATE_DIR) {
                continue;
            }
            match entry.metadata() {
                Ok(status) if status.is_dir() => folders.push(relative),
                Ok(status) if status.is_file() => found.push(Found {
                    path: relative,
                    status,
                }),
                Ok(_) => {}
                Err(error) if vanished(&error) => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot look at {}", entry.path().display()));
                }
            }
        }
    }
    Ok(found)
}

/// A file whose content is to be looked at, which must not count as its use.
pub(super) struct Unread {
    /// From the cache's root.
    pub(super) path: PathBuf,
    /// On a mount: its number there, and where its content is.
    served: Option<(u64, Place)>,
}

impl Unread {
    /// Whether a daemon keeps its content on disk.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self.served, Some((_, Place::Memory | Place::Disk)))
    }

    /// Opens it. On a plain directory that is without touching its access time, where this user may; on a mount
    /// by its inode's number, likewise, and reading it goes past all caches to the disk, where the daemon
    /// compares it with its digest: EIO if it does not match.
    pub(super) fn open(&self, target: &Target) -> io::Result<File> {
        let path = target.dir.join(&self.path);
        let Some((inode, _)) = self.served else {
            return open_quietly(&path);
        };
        let numbers = target.hidden_path(BY_INODE);
        match open_for(&numbers.join(inode.to_string()), OFlags::DIRECT) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                open_for(&path, OFlags::DIRECT)
            }
            opened => opened,
        }
    }
}

/// The files of a cache, sorted by path, to be read without a trace.
///
/// # Errors
/// When a folder cannot be read.
pub(super) fn unread(target: &Target) -> anyhow::Result<Vec<Unread>> {
    let mut all: Vec<Unread> = match target.hidden_lines::<EntryRow>(ENTRIES_JSONL)? {
        Some(rows) => rows
            .into_iter()
            .filter_map(|row| {
                Some(Unread {
                    path: beneath(row.path)?,
                    served: Some((row.inode, row.tier)),
                })
            })
            .collect(),
        None => files(&target.dir)?
            .into_iter()
            .map(|found| Unread {
                path: found.path,
                served: None,
            })
            .collect(),
    };
    all.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(all)
}

fn vanished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Opens a file to be read, if possible without a trace: the access time of a plain cache says when
/// an entry was last used.
pub(super) fn open_quietly(path: &Path) -> io::Result<File> {
    open_for(path, OFlags::empty())
}

fn open_for(path: &Path, flags: OFlags) -> io::Result<File> {
    // Without NONBLOCK a fifo would hold this process up.
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    // Only the owner may ask for that.
    let file = rustix::fs::open(path, flags | OFlags::NOATIME, Mode::empty())
        .or_else(|_| rustix::fs::open(path, flags, Mode::empty()))?;
    Ok(File::from(file))
}

/// How a file is framed; `None` where that cannot be told.
fn format_of(path: &Path) -> Option<Format> {
    let mut head = Vec::new();
    open_quietly(path)
        .and_then(|file| file.take(Format::HEAD_LEN as u64).read_to_end(&mut head))
        .ok()?;
    Format::of_head(&head)
}

/// Marks the rows of which a newer source is there.
fn mark_superseded(rows: &mut [Row]) {
    let mut newest = HashMap::new();
    for row in rows.iter() {
        if let Some(name) = &row.name {
            newest
                .entry(template_of(row, name))
                .or_insert_with(Newest::default)
                .add(&name.source_hash, row.modified);
        }
    }
    let marks: Vec<bool> = rows
        .iter()
        .map(|row| {
            row.name.as_ref().is_some_and(|name| {
                newest
                    .get(&template_of(row, name))
                    .and_then(|newest| newest.other_than(&name.source_hash))
                    .is_some_and(|at| at > row.modified)
            })
        })
        .collect();
    for (row, mark) in rows.iter_mut().zip(marks) {
        row.superseded = mark;
    }
}

/// Folder, version and name: what one template's entries have in common.
fn template_of(row: &Row, name: &Name) -> (PathBuf, String, String) {
    let folder = row.path.parent().unwrap_or(Path::new("")).to_owned();
    (folder, name.version.clone(), name.template.clone())
}

/// The newest entry of a template, and the newest of another source than that.
#[derive(Default)]
struct Newest {
    first: Option<(String, SystemTime)>,
    other: Option<SystemTime>,
}

impl Newest {
    fn add(&mut self, source: &str, at: SystemTime) {
        match &mut self.first {
            Some((first, newest)) if first == source => *newest = at.max(*newest),
            Some((_, newest)) if at > *newest => {
                self.other = Some(*newest);
                self.first = Some((source.to_owned(), at));
            }
            Some(_) => self.other = self.other.max(Some(at)),
            None => self.first = Some((source.to_owned(), at)),
        }
    }

    fn other_than(&self, source: &str) -> Option<SystemTime> {
        match &self.first {
            Some((first, at)) if first != source => Some(*at),
            _ => self.other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leads_out_of_the_mount_is_none() {
        for path in ["/etc/passwd", "../x", "a/../../x", "./../x", "", "a/.."] {
            assert_eq!(beneath(path), None, "{path}");
        }
        for path in ["x", "a/b/x", "..x", "a/...y"] {
            assert_eq!(beneath(path), Some(PathBuf::from(path)));
        }
    }

    #[test]
    fn nothing_is_removed_by_way_of_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("x"), "precious").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("a")).unwrap();
        for path in [
            Path::new("a/x"),
            Path::new("../outside/x"),
            &outside.join("x"),
        ] {
            assert!(remove(&root, path).is_err(), "{}", path.display());
        }
        assert!(outside.join("x").exists());
        fs::create_dir(root.join("b")).unwrap();
        fs::write(root.join("b/x"), "").unwrap();
        remove(&root, Path::new("b/x")).unwrap();
        assert!(!root.join("b/x").exists());
    }
}
