//! The file that a daemon in the background logs to: its standard error, opened anew on SIGHUP so
//! that it can be rotated.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::OFlags;

use super::role::Role;

/// Readable for its group, which on most machines is the administrators'.
const MODE: u32 = 0o640;

/// The file of this process.
static NAMED: OnceLock<PathBuf> = OnceLock::new();

/// Why there is no log file.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the log file {}: {source}; name another, which is no link", path.display())]
pub struct LogFileError {
    path: PathBuf,
    source: io::Error,
}

/// Opens the file for this process, whose standard error is to go there.
///
/// # Errors
/// When it cannot be written, or is a symbolic link, by which somebody else could choose the file.
pub fn open(path: &Path) -> Result<File, LogFileError> {
    let file = open_to_append(path).map_err(|source| LogFileError {
        path: path.to_owned(),
        source,
    })?;
    if !Role::of_this_process().is_in_foreground() {
        let _ = NAMED.set(path.to_owned());
    }
    Ok(file)
}

fn open_to_append(path: &Path) -> io::Result<File> {
    // Without NONBLOCK a pipe that nobody reads would hold the daemon up.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    File::options()
        .append(true)
        .create(true)
        .mode(MODE)
        .custom_flags(flags.bits() as i32)
        .open(path)
}

/// Opens the file anew, if this process has one, and has standard error go there.
pub(super) fn reopen() {
    let Some(path) = NAMED.get() else { return };
    let again = open_to_append(path)
        .and_then(|file| rustix::stdio::dup2_stderr(&file).map_err(io::Error::from));
    if let Err(error) = again {
        log::error!(
            "the log file {} cannot be opened anew: {error}",
            path.display()
        );
    }
}
