//! The kernel's table of mounts, `/proc/self/mountinfo`.
//!
//! Own code, because the parsers on crates.io read lines as UTF-8 or leave the octal escapes in:
//! one mount point with an odd name, anybody's, would hide every other mount.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The file system type under which kidafs mounts appear.
pub const FSTYPE: &str = "fuse.kidafs";

/// One line of the table; the fields are those of proc_pid_mountinfo(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Identifies the mount as long as it exists; used again after that.
    pub id: u64,
    /// The mount on which this one lies.
    pub parent: u64,
    /// Device number of the mounted filesystem. For FUSE the minor number names the connection.
    pub device: (u32, u32),
    /// Where it is mounted, as seen from this process's root.
    pub mount_point: PathBuf,
    /// Filesystem type, with subtype.
    pub fstype: String,
    /// What is mounted: a device, a directory, or any text.
    pub source: OsString,
    /// Options of the filesystem itself (not those of this one mount), separated by commas.
    pub super_options: String,
}

impl Mount {
    /// Whether kidafs made it.
    pub fn is_kidafs(&self) -> bool {
        self.fstype == FSTYPE
    }

    /// Whether it is a FUSE filesystem, whoever made it. One whose daemon hangs blocks a `stat`.
    pub fn is_fuse(&self) -> bool {
        self.fstype == "fuse" || self.fstype == "fuseblk" || self.fstype.starts_with("fuse.")
    }

    /// The user a FUSE filesystem is mounted for. Without `allow_other` the kernel lets nobody
    /// else in, not even root.
    pub fn user_id(&self) -> Option<u32> {
        self.super_options
            .split(',')
            .find_map(|option| option.strip_prefix("user_id="))
            .and_then(|id| id.parse().ok())
    }
}

/// The mounts this process sees, in the kernel's order.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn read() -> io::Result<Vec<Mount>> {
    std::fs::read("/proc/self/mountinfo").map(|table| parse(&table))
}

/// Reads a table. A line that is not understood is left out: a kernel may add to the format.
pub fn parse(table: &[u8]) -> Vec<Mount> {
    table
        .split(|&byte| byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

/// The mount that is seen at `path`, where several may be stacked; `None` if nothing is mounted
/// exactly there. A mount on one of its parent directories is not taken into account.
pub fn top<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let here = |mount: &&Mount| mount.mount_point == path;
    // The one on which none of the others lies. The order of the table says the same as a rule,
    // but not after `mount --move` or `--beneath`.
    mounts.iter().rev().filter(here).find(|candidate| {
        !mounts
            .iter()
            .filter(here)
            .any(|other| other.parent == candidate.id && other.id != candidate.id)
    })
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let mut device = fields.next()?.splitn(2, |&byte| byte == b':');
    let device = (
        u32::try_from(number(device.next()?)?).ok()?,
        u32::try_from(number(device.next()?)?).ok()?,
    );
    let _root = fields.next()?;
    let mount_point = PathBuf::from(unescape(fields.next()?));
    let _mount_options = fields.next()?;
    // Optional fields follow, any number of them, ended by a lone hyphen.
    fields.by_ref().find(|field| *field == b"-")?;
    let fstype = text(fields.next()?);
    let source = unescape(fields.next()?);
    let super_options = text(fields.next().unwrap_or_default());
    Some(Mount {
        id,
        parent,
        device,
        mount_point,
        fstype,
        source,
        super_options,
    })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn text(field: &[u8]) -> String {
    unescape(field).to_string_lossy().into_owned()
}

/// Undoes the kernel's escapes: a backslash and three octal digits. It writes space, tab, newline,
/// backslash and `#` so.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        if let (b'\\', Some((byte, after))) = (first, octal(tail)) {
            bytes.push(byte);
            rest = after;
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    OsString::from_vec(bytes)
}

fn octal(field: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = field.split_at_checked(3)?;
    let value = digits.iter().try_fold(0_u32, |value, digit| {
        matches!(digit, b'0'..=b'7').then(|| value * 8 + u32::from(digit - b'0'))
    })?;
    Some((u8::try_from(value).ok()?, rest))
}
