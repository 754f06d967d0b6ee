//! The quarantine: a bounded folder for files whose content is wrong, for people to look at.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, Result};

/// Files kept at the most, and their bytes. The oldest go first.
const MAX_FILES: usize = 64;
const MAX_BYTES: u64 = 64 << 20;

/// The longest name that a number and a dot still fit before.
const NAME_KEPT: usize = 230;

#[derive(Debug)]
pub(super) struct Quarantine {
    dir: OwnedFd,
    /// Oldest first: number in the name, name, size.
    kept: Mutex<Vec<(u64, OsString, u64)>>,
}

impl Quarantine {
    /// `dir` is private; what is in it is counted towards the bounds.
    pub(super) fn open(dir: OwnedFd) -> Result<Self> {
        let mut kept = Vec::new();
        let own = rustix::fs::openat(
            &dir,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        for entry in rustix::fs::Dir::new(own)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
            if let Some(number) = number_of(&name) {
                let stat = rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                // A directory was not put there by us, and could not be removed to make room.
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    kept.push((number, name, u64::try_from(stat.st_size).unwrap_or(0)));
                }
            }
        }
        kept.sort_unstable();
        Ok(Self {
            dir,
            kept: Mutex::new(kept),
        })
    }

    /// Moves `name` out of `dir` into the quarantine.
    pub(super) fn take(&self, dir: impl AsFd, name: &OsStr) -> Result<()> {
        let mut kept = self.kept.lock();
        let number = kept
            .last()
            .map_or(1, |(number, _, _)| number.saturating_add(1));
        let size = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_size;
        let bytes = name.as_bytes();
        let mut inside = format!("{number}.").into_bytes();
        inside.extend_from_slice(&bytes[..bytes.len().min(NAME_KEPT)]);
        let inside = OsString::from_vec(inside);
        rustix::fs::renameat_with(dir, name, &self.dir, &inside, RenameFlags::empty())?;
        kept.push((number, inside, u64::try_from(size).unwrap_or(0)));
        while kept.len() > MAX_FILES
            || kept.iter().map(|(_, _, size)| size).sum::<u64>() > MAX_BYTES
        {
            let (_, oldest, _) = kept.remove(0);
            match rustix::fs::unlinkat(&self.dir, &oldest, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                // What was to be set aside is: the rest is not the caller's concern.
                Err(error) => log::warn!("{oldest:?} stays in the quarantine: {error}"),
            }
        }
        Ok(())
    }

    pub(super) fn files(&self) -> u64 {
        self.kept.lock().len() as u64
    }
}

fn number_of(name: &OsStr) -> Option<u64> {
    name.to_str()?.split_once('.')?.0.parse().ok()
}
