//! Root follows no path of which somebody else could exchange a part.
//!
//! Whoever may write a folder on the way can put something else in the place of what is below it: a link to `/etc`,
//! for instance, which root would then serve and sweep. So each folder on the way belongs to root or to the
//! directory's owner, and only they may write it. In a folder with the sticky bit (`/tmp`) only the owner of a thing
//! may exchange it, so that there the thing itself must be theirs. Each link on the way is judged in the same way.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::backing::BackingError;
use crate::tier::Trusted;

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

const STICKY: u32 = 0o1000;

/// Checks the way to `path` for root; for anybody else, and where it does not lead to anything yet, as far as it goes.
///
/// # Errors
/// If somebody else could exchange a part of it; those of the system.
pub fn check(path: &Path) -> Result<(), BackingError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let steps = walk(path).map_err(|errno| BackingError::of(path, "look at", errno))?;
    let owner = steps.last().map_or(0, |step| step.what.st_uid);
    let trusted = Trusted::with_owner(owner);
    for step in &steps {
        let mode = step.folder.st_mode;
        let others =
            mode & 0o002 != 0 || mode & 0o020 != 0 && !trusted.has_group(step.folder.st_gid);
        let exchangeable = others && (mode & STICKY == 0 || !trusted.has_user(step.what.st_uid));
        if exchangeable || !trusted.has_user(step.folder.st_uid) {
            return Err(BackingError::Exchangeable {
                path: path.to_owned(),
                part: step.part.clone(),
                folder: step.part.parent().unwrap_or(Path::new("/")).to_owned(),
            });
        }
    }
    Ok(())
}

/// A step: something in a folder.
struct Step {
    folder: Stat,
    what: Stat,
    /// Its path.
    part: PathBuf,
}

fn walk(path: &Path) -> Result<Vec<Step>, Errno> {
    let open = |at: &OwnedFd, name: &OsStr| {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(at, name, flags, Mode::empty())
    };
    let root = || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open("/", flags, Mode::empty())
    };
    let mut left: Vec<OsString> = parts(path).rev().collect();
    let mut way = vec![(root()?, PathBuf::from("/"))];
    let (mut steps, mut links) = (Vec::new(), 0);
    while let Some(name) = left.pop() {
        if name == "/" {
            way.truncate(1);
            continue;
        }
        if name == ".." {
            if way.len() > 1 {
                way.pop();
            }
            continue;
        }
        // The root stays.
        let Some((at, at_path)) = way.last() else {
            break;
        };
        let fd = match open(at, &name) {
            Ok(fd) => fd,
            // What is to be made is made in what was looked at.
            Err(Errno::NOENT) => break,
            Err(error) => return Err(error),
        };
        let what = match rustix::fs::fstat(&fd) {
            Ok(what) => what,
            // A mount whose daemon has died, or that lets nobody in: its place was looked at.
            Err(Errno::NOTCONN | Errno::ACCESS) => break,
            Err(error) => return Err(error),
        };
        let step = Step {
            folder: rustix::fs::fstat(at)?,
            what,
            part: at_path.join(&name),
        };
        let kind = FileType::from_raw_mode(step.what.st_mode);
        let part = step.part.clone();
        steps.push(step);
        if kind == FileType::Symlink {
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::LOOP);
            }
            let target = rustix::fs::readlinkat(&fd, "", Vec::new())?;
            let target = PathBuf::from(OsStr::from_bytes(target.to_bytes()));
            left.extend(parts(&target).rev());
        } else if kind == FileType::Directory {
            way.push((fd, part));
        } else if !left.is_empty() {
            return Err(Errno::NOTDIR);
        }
    }
    Ok(steps)
}

fn parts(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::RootDir => Some("/".into()),
        Component::ParentDir => Some("..".into()),
        Component::Normal(name) => Some(name.to_owned()),
        Component::CurDir | Component::Prefix(_) => None,
    })
}
