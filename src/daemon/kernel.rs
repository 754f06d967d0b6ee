//! The kernel's own calls by which root mounts a FUSE filesystem.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags};

use super::mount::MountOptions;
use super::mountinfo;

/// The kernel's name for a directory's type in `rootmode=`.
const ROOT_MODE: &str = "40000";

/// The options of a FUSE filesystem whose requests are read from `device`.
fn parameters(device: BorrowedFd<'_>, options: &MountOptions) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("fd", device.as_raw_fd().to_string()),
        ("rootmode", ROOT_MODE.to_owned()),
        ("user_id", rustix::process::getuid().as_raw().to_string()),
        ("group_id", rustix::process::getgid().as_raw().to_string()),
    ];
    if options.allow_other {
        // Without it the kernel lets in nobody but root, whom no mode keeps out; and checking modes makes it
        // ask for the directory's attributes again after each change in it.
        all.push(("allow_other", String::new()));
        all.push(("default_permissions", String::new()));
    }
    all
}

/// A mount that is nowhere yet (mount_setattr(2) and its family, Linux 5.2).
pub(super) fn detached(device: BorrowedFd<'_>, options: &MountOptions) -> Result<OwnedFd, Errno> {
    let filesystem = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set =
        |key: &str, value: &OsStr| rustix::mount::fsconfig_set_string(&filesystem, key, value);
    set("source", &options.source)?;
    set("subtype", OsStr::new("kidafs"))?;
    for (key, value) in parameters(device, options) {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(&filesystem, key)?;
        } else {
            set(key, OsStr::new(&value))?;
        }
    }
    let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    if options.read_only {
        rustix::mount::fsconfig_set_flag(&filesystem, "ro")?;
        flags |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    rustix::mount::fsconfig_create(&filesystem)?;
    rustix::mount::fsmount(&filesystem, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

pub(super) fn by_name(
    device: BorrowedFd<'_>,
    place: &Path,
    options: &MountOptions,
) -> Result<(), Errno> {
    let data: Vec<_> = parameters(device, options)
        .into_iter()
        .map(|(key, value)| match value.is_empty() {
            true => key.to_owned(),
            false => format!("{key}={value}"),
        })
        .collect();
    let data = CString::new(data.join(",")).map_err(|_| Errno::INVAL)?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if options.read_only {
        flags |= MountFlags::RDONLY;
    }
    rustix::mount::mount(
        options.source.as_os_str(),
        place,
        mountinfo::FSTYPE,
        flags,
        data.as_c_str(),
    )
}
