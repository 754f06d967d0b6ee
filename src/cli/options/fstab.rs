//! `-o key=value,key,…`, as `/etc/fstab` and mount(8) give options.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::key::{Key, SUPERVISE};
use super::{Given, OptionError};
use crate::config::Origin;

/// What mount(8), systemd and fstab say to themselves, and what holds for every kidafs mount
/// anyway.
const IGNORED: [&str; 39] = [
    "dirsync",
    "iversion",
    "mand",
    "noiversion",
    "nomand",
    "nosymfollow",
    "nodirsync",
    "_netdev",
    "async",
    "auto",
    "default_permissions",
    "defaults",
    "diratime",
    "group",
    "lazytime",
    "loud",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "noexec",
    "nofail",
    "nogroup",
    "nolazytime",
    "noowner",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nouser",
    "nousers",
    "owner",
    "relatime",
    "rw",
    "silent",
    "strictatime",
    "sync",
    "user",
    "users",
    "atime",
];

/// What a kidafs mount cannot be.
const REFUSED: [&str; 3] = ["dev", "exec", "suid"];

/// Reads one `-o` argument. A comma or a backslash within a value is written `\,` or `\\`.
pub(super) fn parse(text: &OsStr) -> Result<Vec<Given>, OptionError> {
    let mut all = Vec::new();
    for item in split(text.as_bytes()) {
        let (name, value) = match item.iter().position(|byte| *byte == b'=') {
            Some(at) => (&item[..at], Some(&item[at + 1..])),
            None => (item.as_slice(), None),
        };
        let name = String::from_utf8_lossy(name);
        if let Some(given) = option(name.trim(), value)? {
            all.push(given);
        }
    }
    Ok(all)
}

fn option(name: &str, value: Option<&[u8]>) -> Result<Option<Given>, OptionError> {
    if REFUSED.contains(&name) {
        return Err(OptionError::Conflict(format!(
            "the mount option {name} is not possible, since a kidafs mount is always nosuid, nodev and noexec; leave it out"
        )));
    }
    if matches!(name, "remount" | "bind" | "rbind" | "move") {
        return Err(OptionError::Conflict(format!(
            "the mount option {name} is not possible; to change what a mount does, unmount it and mount it with the new options"
        )));
    }
    let generic = name.is_empty()
        || IGNORED.contains(&name)
        || name.starts_with("x-")
        || name.starts_with("X-")
        || name.starts_with("comment");
    if generic {
        return Ok(None);
    }
    let (name, value) = match name {
        "ro" => ("read-only", None),
        "no-supervise" | "nosupervise" => (SUPERVISE, Some(b"false".as_slice())),
        name => (name, value),
    };
    let Some(key) = Key::find(name) else {
        return Err(OptionError::unknown(name, Origin::MountOption));
    };
    let value = match (value, key.value_name) {
        (Some(value), _) => OsString::from_vec(value.to_vec()),
        (None, None) => OsString::from("true"),
        (None, Some(kind)) => {
            return Err(OptionError::Conflict(format!(
                "the mount option {} needs a value; write -o {}={kind}",
                key.name, key.name
            )));
        }
    };
    Ok(Some(Given {
        name: key.name,
        value,
        origin: Origin::MountOption,
    }))
}

/// The items between the commas, with the backslashes taken away.
fn split(text: &[u8]) -> Vec<Vec<u8>> {
    let mut items = vec![Vec::new()];
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        let literal = match byte {
            b',' => {
                items.push(Vec::new());
                continue;
            }
            b'\\' => bytes.next().unwrap_or(byte),
            byte => byte,
        };
        if let Some(item) = items.last_mut() {
            item.push(*literal);
        }
    }
    items
}
