//! Mounting, by mount(2) as root and through `fusermount3` as anybody else.
//!
//! fuser could mount too, but after an external unmount it unmounts the path once more and can hit
//! what lies beneath, and it does not escape the source. So the mount is made and owned here, and
//! fuser is given nothing but the descriptor (`Session::from_fd`).

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::mount::MoveMountFlags;
use rustix::process::Pid;

use super::fusermount::{self, HelperError};
use super::kernel;
use super::mountinfo::{self, Mount};
use super::mountpoint::{self, InspectError, State};
use super::unmount::{self, UnmountError};

const DEVICE: &str = "/dev/fuse";
/// Its number, major and minor: `MISC_MAJOR` and `FUSE_MINOR` of the kernel (include/linux/miscdevice.h).
const DEVICE_NUMBER: (u32, u32) = (10, 229);
const FUSE_CONF: &str = "/etc/fuse.conf";

/// More dead mounts on one directory than restarts can leave behind.
const MOST_DEAD_MOUNTS: usize = 1000;

/// How to mount. Every mount is nosuid, nodev and noexec, and the kernel checks permissions by the
/// modes the daemon reports (`default_permissions`), wherever anybody but root can get in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// What df, mount and fstab show as the source; any bytes but NUL.
    pub source: OsString,
    /// Refuse writes before they reach the daemon.
    pub read_only: bool,
    /// Let other users in, as far as modes allow.
    pub allow_other: bool,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            source: OsString::from("kidafs"),
            read_only: false,
            allow_other: false,
        }
    }
}

/// Why a directory was not mounted over.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// It could not be looked at.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// It does not exist.
    #[error("{} does not exist: create it first", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// It is not writable for a user who mounts through `fusermount3`.
    #[error("no permission to mount over {}: {reason}; it must be yours and writable (chown, chmod u+w)", path.display())]
    Denied {
        /// The directory.
        path: PathBuf,
        /// The system's reason, or that of `fusermount3`.
        reason: String,
    },
    /// A live kidafs serves it.
    #[error(
        "{} is already served by kidafs{}: use it as it is, or end it with `kidafs umount {}`",
        path.display(), by(*pid, mount), path.display()
    )]
    AlreadyServed {
        /// The directory.
        path: PathBuf,
        /// The daemon, if it can be told.
        pid: Option<Pid>,
        /// Its mount.
        mount: Box<Mount>,
    },
    /// A mount that does not answer is on it.
    #[error(
        "{} is mounted ({fstype}), but what serves it does not answer: end that process, or detach the mount with `umount --lazy {}`",
        path.display(), path.display()
    )]
    Silent {
        /// The directory.
        path: PathBuf,
        /// The filesystem's type.
        fstype: String,
    },
    /// Another program's dead FUSE mount is on it.
    #[error(
        "{} holds a dead mount of another program ({fstype}): detach it with `fusermount3 -u -z {}`",
        path.display(), path.display()
    )]
    DeadOther {
        /// The directory.
        path: PathBuf,
        /// The filesystem's type.
        fstype: String,
    },
    /// A dead mount could not be detached.
    #[error("the dead mount on {} could not be detached: {source}", path.display())]
    Dead {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: UnmountError,
    },
    /// `/dev/fuse` is missing, or nothing is behind it.
    #[error(
        "/dev/fuse is not there: load the kernel's module with `modprobe fuse`; start a container with --device /dev/fuse"
    )]
    NoDevice,
    /// `/dev/fuse` may not be opened.
    #[error(
        "/dev/fuse may not be opened by this user: give it its usual mode (chmod 666 /dev/fuse), or run as root"
    )]
    DeviceDenied,
    /// `fusermount3` is missing.
    #[error(
        "fusermount3 was not found, and only root mounts without it: install the package fuse3, or run as root"
    )]
    NoHelper,
    /// `--allow-other` is not for ordinary users on this machine.
    #[error(
        "/etc/fuse.conf does not let users share a mount: add the line user_allow_other to it, or leave out --allow-other"
    )]
    AllowOther,
    /// The kernel refused, although the user is root.
    #[error(
        "the kernel does not permit this process to mount: it needs CAP_SYS_ADMIN (start a container with --cap-add SYS_ADMIN --device /dev/fuse)"
    )]
    NotPermitted,
    /// A security module refused, as a rule AppArmor's profile of `fusermount3` (Ubuntu 25.04 on).
    #[error(
        "fusermount3 may not mount on {}, as a rule because AppArmor confines it to home directories, /mnt, /media and /tmp: add the line `mount fstype=@{{fuse_types}} options=(nosuid,nodev,noexec,rw) -> {}/,` to /etc/apparmor.d/local/fusermount3 and reload AppArmor, or mount as root",
        path.display(), path.display()
    )]
    Confined {
        /// The directory.
        path: PathBuf,
    },
    /// `fusermount3` refused for a reason of its own.
    #[error("fusermount3 did not mount {}: {reason}", path.display())]
    Helper {
        /// The directory.
        path: PathBuf,
        /// Its words.
        reason: String,
    },
    /// Anything else.
    #[error("cannot mount on {}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

fn by(pid: Option<Pid>, mount: &Mount) -> String {
    match (pid, mount.user_id()) {
        (Some(pid), _) => format!(" (process {pid})"),
        (None, Some(user)) => format!(" (of user {user})"),
        (None, None) => String::new(),
    }
}

/// Looks at `dir`, detaches dead kidafs mounts from it, however many, and returns its path, without
/// symbolic links; `None` if nothing is there.
///
/// # Errors
/// When it is served already, is no directory, or cannot be reached.
pub fn clear(dir: &Path) -> Result<Option<PathBuf>, MountError> {
    for _ in 0..MOST_DEAD_MOUNTS {
        let found = mountpoint::inspect(dir)?;
        let path = found.path;
        match found.state {
            State::Missing => return Ok(None),
            State::Directory => return Ok(Some(path)),
            State::Silent(mount) => {
                return Err(MountError::Silent {
                    path,
                    fstype: mount.fstype,
                });
            }
            State::Live { mount, pid } => {
                return Err(MountError::AlreadyServed {
                    path,
                    pid,
                    mount: Box::new(mount),
                });
            }
            State::Dead(mount) if !mount.is_kidafs() => {
                return Err(MountError::DeadOther {
                    path,
                    fstype: mount.fstype,
                });
            }
            State::Dead(_) => match unmount::detach(&path) {
                Ok(()) => log::warn!("detached a dead mount from {}", path.display()),
                Err(source) => return Err(MountError::Dead { path, source }),
            },
        }
    }
    Err(MountError::Io {
        path: dir.to_owned(),
        source: io::Error::other("dead mounts on it come back as fast as they are detached"),
    })
}

/// A mount this process made. When it is dropped the mount is detached, unless it is gone already
/// or [`forget`](Self::forget) was called: a start that fails half-way leaves nothing behind.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
    id: u64,
    device: (u32, u32),
    /// The connection, as one more descriptor of `/dev/fuse`. The kernel gives the numbers of a
    /// mount that is gone to the next one, perhaps another daemon's; but as long as the connection
    /// lives, so does its filesystem, and nobody else has its device number.
    connection: OwnedFd,
    forgotten: bool,
}

/// Mounts over `dir` and returns the descriptor for `fuser::Session::from_fd`. Any access to the
/// directory waits from now on, until the session answers.
///
/// `dir` must be a directory as [`clear`] returns it. The directory beneath must have been opened
/// before, and this process must not name `dir` again.
///
/// # Errors
/// Each with one sentence that says what to do.
pub fn mount(dir: &Path, options: &MountOptions) -> Result<(OwnedFd, Mounted), MountError> {
    let place = place(dir)?;
    mount_on(place.as_fd(), dir, options)
}

/// As [`mount`], but root mounts over the open directory `place`, whatever `dir` leads to by now: who
/// may rename a folder on the way could else have root mount over a directory of root's.
///
/// # Errors
/// Each with one sentence that says what to do.
pub fn mount_on(
    place: BorrowedFd<'_>,
    dir: &Path,
    options: &MountOptions,
) -> Result<(OwnedFd, Mounted), MountError> {
    let (device, id) = if rustix::process::geteuid().is_root() {
        mount_directly(place, dir, options)?
    } else {
        (mount_by_helper(dir, options)?, None)
    };
    let connection = device.try_clone();
    let identified = connection.and_then(|connection| identify(dir, id, connection));
    let mounted = identified.map_err(|source| {
        // Not known which mount it is, but it is ours, and nobody is going to serve it.
        let _ = unmount::detach(dir);
        MountError::Io {
            path: dir.to_owned(),
            source,
        }
    })?;
    Ok((device, mounted))
}

/// The directory that is to be mounted over, opened as a mere place.
///
/// # Errors
/// When it cannot be opened.
pub fn place(dir: &Path) -> Result<OwnedFd, MountError> {
    mountpoint::open_path(dir).map_err(|errno| io_error(dir, errno))
}

fn io_error(dir: &Path, errno: Errno) -> MountError {
    MountError::Io {
        path: dir.to_owned(),
        source: errno.into(),
    }
}

/// Finds the mount just made, without a message to its daemon, which is this very process. `id` is
/// its number, where that is known.
fn identify(dir: &Path, id: Option<u64>, connection: OwnedFd) -> io::Result<Mounted> {
    let id = match id {
        Some(id) => id,
        None => mountpoint::mount_id(mountpoint::open_path(dir)?.as_fd())?,
    };
    mountinfo::read()?
        .into_iter()
        .find(|mount| mount.id == id && mount.is_kidafs())
        .map(|mount| Mounted {
            path: mount.mount_point,
            id,
            device: mount.device,
            connection,
            forgotten: false,
        })
        .ok_or_else(|| io::Error::other("the new mount is not in /proc/self/mountinfo"))
}

/// Mounts over `place`; the number of the mount where the kernel tells it.
fn mount_directly(
    place: BorrowedFd<'_>,
    dir: &Path,
    options: &MountOptions,
) -> Result<(OwnedFd, Option<u64>), MountError> {
    let io_error = |source| MountError::Io {
        path: dir.to_owned(),
        source,
    };
    let device: OwnedFd = OpenOptions::new()
        .read(true)
        .write(true)
        .open(DEVICE)
        .map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => MountError::NoDevice,
            Some(Errno::ACCESS | Errno::PERM) => MountError::DeviceDenied,
            _ => io_error(error),
        })?
        .into();
    let found = rustix::fs::fstat(&device).map_err(|errno| io_error(errno.into()))?;
    if found.st_rdev != rustix::fs::makedev(DEVICE_NUMBER.0, DEVICE_NUMBER.1) {
        return Err(MountError::NoDevice);
    }
    let refused = |errno| match errno {
        Errno::PERM | Errno::ACCESS => MountError::NotPermitted,
        Errno::NODEV => MountError::NoDevice,
        Errno::NOENT => MountError::Missing {
            path: dir.to_owned(),
        },
        errno => io_error(errno.into()),
    };
    match kernel::detached(device.as_fd(), options) {
        Ok(mount) => {
            let id = mountpoint::mount_id(mount.as_fd()).map_err(refused)?;
            let how =
                MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            rustix::mount::move_mount(mount.as_fd(), "", place, "", how).map_err(refused)?;
            Ok((device, Some(id)))
        }
        // Linux before 5.2, or a container whose filter knows mount(2) only.
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP) => {
            let place = format!("/proc/self/fd/{}", place.as_raw_fd());
            kernel::by_name(device.as_fd(), Path::new(&place), options).map_err(refused)?;
            Ok((device, None))
        }
        Err(errno) => Err(refused(errno)),
    }
}

fn mount_by_helper(dir: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    if !Path::new(DEVICE).exists() {
        return Err(MountError::NoDevice);
    }
    if options.allow_other && !users_may_share() {
        return Err(MountError::AllowOther);
    }
    let mut list = OsString::from("nosuid,nodev,noexec,default_permissions,subtype=kidafs");
    if options.read_only {
        list.push(",ro");
    }
    if options.allow_other {
        list.push(",allow_other");
    }
    list.push(",fsname=");
    list.push(fusermount::escape(&options.source));
    fusermount::mount(dir, &list).map_err(|error| match error {
        HelperError::Missing => MountError::NoHelper,
        HelperError::Refused(reason) => refusal(dir, reason),
        HelperError::Io(source) => MountError::Io {
            path: dir.to_owned(),
            source,
        },
    })
}

/// Sorts the words of `fusermount3` (util/fusermount.c of libfuse 3; they are not translated).
fn refusal(dir: &Path, reason: String) -> MountError {
    let path = dir.to_owned();
    if reason.contains("failed to open /dev/fuse: Permission denied") {
        MountError::DeviceDenied
    } else if reason.contains("fuse device not found") {
        MountError::NoDevice
    } else if reason.contains("user_allow_other") {
        MountError::AllowOther
    } else if reason.contains("not owned by user") || reason.contains("no write access") {
        MountError::Denied { path, reason }
    } else if reason.ends_with("mount failed: Permission denied") {
        MountError::Confined { path }
    } else {
        MountError::Helper { path, reason }
    }
}

/// Whether `/etc/fuse.conf` has the line `user_allow_other`; yes if it cannot be read, since
/// `fusermount3`, which can, then decides.
fn users_may_share() -> bool {
    match std::fs::read_to_string(FUSE_CONF) {
        Ok(text) => text
            .lines()
            .any(|line| line.split('#').next().map(str::trim) == Some("user_allow_other")),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

impl Mounted {
    /// Where it was mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The minor number of its device, which names its folder in `/sys/fs/fuse/connections`.
    pub fn connection(&self) -> u32 {
        self.device.1
    }

    /// Whether a line of a table of mounts is of the same filesystem, in whichever namespace.
    pub(super) fn is_same(&self, mount: &Mount) -> bool {
        mount.is_kidafs() && mount.device == self.device
    }

    /// The mount as it is now, wherever it was moved, and whether it is on top there; `None` once it
    /// is unmounted or detached, and also if its connection is aborted.
    /// Reads the table of mounts only, and so can be called by the daemon that serves it.
    fn current(&self) -> Option<(Mount, bool)> {
        if !self.is_connected() {
            return None;
        }
        let mounts = mountinfo::read().ok()?;
        let mount = mounts.iter().find(|mount| self.has_numbers_of(mount))?;
        let on_top = mountinfo::top(&mounts, &mount.mount_point) == Some(mount);
        Some((mount.clone(), on_top))
    }

    fn has_numbers_of(&self, mount: &Mount) -> bool {
        mount.id == self.id && mount.device == self.device && mount.is_kidafs()
    }

    /// Whether the kernel still sends requests; it does until the filesystem is unmounted or the
    /// connection aborted (`fuse_dev_poll` in fs/fuse/dev.c).
    fn is_connected(&self) -> bool {
        let mut events = [PollFd::new(&self.connection, PollFlags::empty())];
        let now = Timespec::default();
        match rustix::event::poll(&mut events, Some(&now)) {
            Ok(_) => !events[0].revents().contains(PollFlags::ERR),
            Err(_) => false,
        }
    }

    /// Whether it is still at its place although its connection was aborted (`umount --force` of a
    /// mount in use does that). Asked only of what is dead, since the numbers may be another's.
    fn is_left_dead(&self) -> bool {
        let listed = mountinfo::read().is_ok_and(|mounts| {
            mountinfo::top(&mounts, &self.path).is_some_and(|mount| self.has_numbers_of(mount))
        });
        listed
            && !self.is_connected()
            && mountpoint::inspect(&self.path)
                .is_ok_and(|found| matches!(found.state, State::Dead(_)))
    }

    /// Whether it is still in the tree of mounts.
    pub fn is_mounted(&self) -> bool {
        self.current().is_some()
    }

    /// Unmounts it. What is mounted by others at the same place is not touched.
    ///
    /// # Errors
    /// [`UnmountError::Busy`] if files are open in it or something is mounted over it,
    /// [`UnmountError::NotMounted`] if somebody else unmounted it.
    pub fn unmount(&self) -> Result<(), UnmountError> {
        unmount::plain(&self.uncovered()?)
    }

    /// Takes it out of the tree; open files stay open. What was beneath can be seen again at once.
    ///
    /// # Errors
    /// As [`unmount`](Self::unmount), but open files are no hindrance.
    pub fn detach(&self) -> Result<(), UnmountError> {
        unmount::detach(&self.uncovered()?)
    }

    fn uncovered(&self) -> Result<PathBuf, UnmountError> {
        match self.current() {
            Some((mount, true)) => Ok(mount.mount_point),
            // By path the one on top would be hit.
            Some((mount, false)) => Err(UnmountError::Busy {
                path: mount.mount_point,
            }),
            None => Err(UnmountError::NotMounted {
                path: self.path.clone(),
            }),
        }
    }

    /// Leaves the mount alone from now on.
    pub fn forget(mut self) {
        self.forgotten = true;
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.forgotten {
            return;
        }
        let detached = if self.is_left_dead() {
            unmount::detach(&self.path)
        } else {
            self.detach()
        };
        match detached {
            Ok(()) | Err(UnmountError::NotMounted { .. }) => {}
            Err(error) => log::warn!("{error}"),
        }
    }
}

/// The source for a mount that keeps its entries in `backing`: its path, or plain `kidafs` if
/// `backing` is the mount point itself.
pub fn source(dir: &Path, backing: Option<&Path>) -> OsString {
    match backing {
        Some(backing) if backing != dir => backing.as_os_str().to_owned(),
        _ => OsStr::new("kidafs").to_owned(),
    }
}
