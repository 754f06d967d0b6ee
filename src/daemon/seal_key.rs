//! The seal key file: read once, before anything is served, and only if nobody else can have read or made it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::tier::{KEY_FILE_MAX, KeyError, Keyring, new_key_file, permits_strangers};

/// Why a key file is not used. Each is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SealKeyError {
    /// The system.
    #[error("cannot read the seal key {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// Making one.
    #[error("cannot make the seal key {}: {source}", path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// A directory, a fifo, a device.
    #[error("the seal key {} is no regular file: make one with `kidafs key seal FILE`", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// Another user's.
    #[error("the seal key {} belongs to user {owner}, who knows it: make one of your own with `kidafs key seal FILE`", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Others can read or write it.
    #[error("the seal key {} has mode {mode:04o}, so that others may know it: run chmod 0400 on it, or make a new one", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is in the directory that it is to protect.
    #[error("the seal key {} is in the directory that it is to seal: keep it where who writes there cannot read it", path.display())]
    Inside {
        /// The file.
        path: PathBuf,
    },
    /// Its content.
    #[error("the seal key {} is neither 32 bytes nor what `kidafs key seal` makes: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
}

/// Reads the keys for the backing directory `backing`. The file belongs to this user or to root, and nobody else
/// may read it (mode 0400; as systemd hands out credentials, a list may name this user instead).
///
/// # Errors
/// Each with one sentence that says what to do.
pub fn read(path: &Path, backing: &Path) -> Result<Keyring, SealKeyError> {
    let failed = |source| SealKeyError::Read {
        path: path.to_owned(),
        source,
    };
    let own = || path.to_owned();
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32)
        .open(path)
        .map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(SealKeyError::Kind { path: own() });
    }
    let user = rustix::process::geteuid().as_raw();
    if found.uid() != user && found.uid() != 0 {
        return Err(SealKeyError::Owner {
            path: own(),
            owner: found.uid(),
        });
    }
    let mode = found.mode() & 0o7777;
    if mode != 0o400 && (mode != 0o440 || permits_strangers(&file, &[0, user])) {
        return Err(SealKeyError::Mode { path: own(), mode });
    }
    let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(failed)?;
    let directory = std::fs::canonicalize(backing).unwrap_or_else(|_| backing.to_owned());
    if real.starts_with(&directory) {
        return Err(SealKeyError::Inside { path: own() });
    }
    parse(&mut file, path)
}

fn parse(file: &mut File, path: &Path) -> Result<Keyring, SealKeyError> {
    let mut content = Zeroizing::new(Vec::new());
    file.take(KEY_FILE_MAX + 1)
        .read_to_end(&mut content)
        .map_err(|source| SealKeyError::Read {
            path: path.to_owned(),
            source,
        })?;
    Keyring::parse(&content).map_err(|source| SealKeyError::Content {
        path: path.to_owned(),
        source,
    })
}

/// Makes a new key file, with mode 0400. What is there already is left alone.
///
/// # Errors
/// Those of the system; the file is there already.
pub fn make(path: &Path) -> Result<(), SealKeyError> {
    let made = || {
        let mut random = Zeroizing::new([0; 48]);
        File::open("/dev/urandom")?.read_exact(&mut *random)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(path)?;
        file.write_all(new_key_file(&random).as_bytes())?;
        file.sync_all()
    };
    made().map_err(|source| SealKeyError::Make {
        path: path.to_owned(),
        source,
    })
}
