//! Notices that a cache changed: inotify on its folders.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use super::local::Local;

/// What an engine's commit is: a rename into place; of an engine that writes in place, the end of writing.
const COMMITS: WatchFlags = WatchFlags::MOVED_TO
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW);

/// The folders of a cache, watched. A watch does not keep a mount busy.
#[derive(Debug)]
pub struct Watch {
    inotify: OwnedFd,
    folders: HashMap<i32, PathBuf>,
}

/// What a watch noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noticed {
    /// Something was committed, or something was missed.
    Change,
    /// The directory is not what it was: it was unmounted, mounted over, or removed.
    Gone,
}

impl Watch {
    /// Watches all folders of a cache.
    ///
    /// # Errors
    /// When the system has no watches left, or the directory cannot be listed.
    pub fn new(local: &Local) -> io::Result<Self> {
        let mut watch = Self {
            inotify: inotify::init(CreateFlags::CLOEXEC)?,
            folders: HashMap::new(),
        };
        watch.add(local.dir())?;
        for folder in local.folders()? {
            if !folder.as_os_str().is_empty() {
                // What has gone meanwhile needs none.
                let _ = watch.add(&local.dir().join(folder));
            }
        }
        Ok(watch)
    }

    fn add(&mut self, folder: &Path) -> io::Result<()> {
        let number = inotify::add_watch(&self.inotify, folder, COMMITS)?;
        self.folders.insert(number, folder.to_owned());
        Ok(())
    }

    /// Waits for the next thing to notice, and takes what else there is with it.
    ///
    /// # Errors
    /// When the system fails.
    pub fn wait(&mut self) -> io::Result<Noticed> {
        loop {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut new = Vec::new();
            let mut noticed = None;
            {
                let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
                loop {
                    let event = reader.next()?;
                    let flags = event.events();
                    if flags.intersects(ReadFlags::IGNORED | ReadFlags::UNMOUNT) {
                        let folder = self.folders.remove(&event.wd());
                        // A folder may go; without the root there is nothing to watch.
                        let is_root = folder.is_none_or(|gone| {
                            self.folders.values().all(|left| !gone.starts_with(left))
                        });
                        if is_root {
                            noticed = Some(Noticed::Gone);
                        }
                    } else if flags.contains(ReadFlags::ISDIR) {
                        let name = event
                            .file_name()
                            .map(|name| OsStr::from_bytes(name.to_bytes()));
                        let folder = self.folders.get(&event.wd());
                        if let (Some(folder), Some(name)) = (folder, name) {
                            new.push(folder.join(name));
                        }
                    } else if flags.intersects(
                        ReadFlags::MOVED_TO | ReadFlags::CLOSE_WRITE | ReadFlags::QUEUE_OVERFLOW,
                    ) {
                        noticed = noticed.or(Some(Noticed::Change));
                    }
                    if reader.is_buffer_empty() {
                        break;
                    }
                }
            }
            for folder in new {
                // Whatever was put into it before it was watched is found by the listing.
                let _ = self.add(&folder);
                noticed = noticed.or(Some(Noticed::Change));
            }
            if let Some(noticed) = noticed {
                return Ok(noticed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::format::Engines;

    #[test]
    fn commits_are_noticed_in_old_folders_and_in_new_ones() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("old")).unwrap();
        let local = Local::open(root, Engines::default()).unwrap();
        let mut watch = Watch::new(&local).unwrap();
        for name in ["a", "old/b"] {
            fs::write(root.join("temporary"), "x").unwrap();
            assert_eq!(watch.wait().unwrap(), Noticed::Change);
            fs::rename(root.join("temporary"), root.join(name)).unwrap();
            assert_eq!(watch.wait().unwrap(), Noticed::Change);
        }
        fs::create_dir(root.join("new")).unwrap();
        assert_eq!(watch.wait().unwrap(), Noticed::Change);
        fs::write(root.join("new/c"), "x").unwrap();
        assert_eq!(watch.wait().unwrap(), Noticed::Change);
    }

    #[test]
    fn the_end_of_the_directory_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("cache");
        fs::create_dir_all(root.join("sub")).unwrap();
        let local = Local::open(&root, Engines::default()).unwrap();
        let mut watch = Watch::new(&local).unwrap();
        fs::remove_dir(root.join("sub")).unwrap();
        fs::remove_dir(&root).unwrap();
        assert_eq!(watch.wait().unwrap(), Noticed::Gone);
    }
}
