//! Extended attributes of names in an open directory.
//!
//! The system has no call that takes a directory descriptor and a name for them; the descriptor's
//! path below `/proc/self/fd` serves instead, so that no path of the backing directory is ever named.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::XattrFlags;
use rustix::io::Result;

/// A generous limit: the kernel's own is 64 KiB for a value and for the list (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const LIMIT: usize = 65_536;

fn path(dir: impl AsFd, name: &OsStr) -> OsString {
    let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    OsString::from_vec(path)
}

pub(super) fn get(dir: impl AsFd, name: &OsStr, key: &OsStr) -> Result<Vec<u8>> {
    let mut value = vec![0; LIMIT];
    let len = rustix::fs::lgetxattr(path(dir, name), key, value.as_mut_slice())?;
    value.truncate(len);
    Ok(value)
}

pub(super) fn set(
    dir: impl AsFd,
    name: &OsStr,
    key: &OsStr,
    value: &[u8],
    flags: XattrFlags,
) -> Result<()> {
    rustix::fs::lsetxattr(path(dir, name), key, value, flags)
}

pub(super) fn remove(dir: impl AsFd, name: &OsStr, key: &OsStr) -> Result<()> {
    rustix::fs::lremovexattr(path(dir, name), key)
}

pub(super) fn list(dir: impl AsFd, name: &OsStr) -> Result<Vec<OsString>> {
    let mut keys = vec![0; LIMIT];
    let len = rustix::fs::llistxattr(path(dir, name), keys.as_mut_slice())?;
    Ok(keys[..len]
        .split(|byte| *byte == 0)
        .filter(|key| !key.is_empty())
        .map(|key| OsStr::from_bytes(key).to_owned())
        .collect())
}
