//! Small filesystems in a temporary folder, to put backing directories on. They need root.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::UnmountFlags;

/// What a backing directory may be on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
    Btrfs,
    Tmpfs,
    /// tmpfs below and above.
    Overlay,
    /// Has no extended attributes, and does not tell its size.
    Ramfs,
}

impl Kind {
    /// Those with user extended attributes.
    pub(crate) const WITH_DIGESTS: [Self; 5] = [
        Self::Ext4,
        Self::Xfs,
        Self::Btrfs,
        Self::Tmpfs,
        Self::Overlay,
    ];

    /// Those on a block device, whose image can be copied.
    pub(crate) const ON_A_DEVICE: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    /// The least size, in bytes, that its tools accept.
    pub(crate) fn least_size(self) -> u64 {
        match self {
            Self::Xfs => 300 << 20,
            Self::Btrfs => 128 << 20,
            _ => 16 << 20,
        }
    }
}

/// A mounted filesystem. Dropped, it is unmounted; its loop device detaches itself with that.
#[derive(Debug)]
pub(crate) struct LoopFs {
    mount_point: PathBuf,
    image: PathBuf,
    /// A mount below, of an overlay.
    below: Option<PathBuf>,
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl LoopFs {
    /// Makes a filesystem of `bytes` in `folder` and mounts it there, at `fs`.
    pub(crate) fn make(folder: &Path, kind: Kind, bytes: u64) -> Self {
        let image = folder.join("image");
        let make = |arguments: &[&str]| {
            File::create(&image).unwrap().set_len(bytes).unwrap();
            run(Command::new(arguments[0]).args(&arguments[1..]).arg(&image));
        };
        let no_reserve = ["mkfs.ext4", "-q", "-m", "0", "-b", "4096"];
        match kind {
            Kind::Ext4 => make(&no_reserve),
            Kind::Xfs => make(&["mkfs.xfs", "-q"]),
            Kind::Btrfs => make(&["mkfs.btrfs", "-q"]),
            Kind::Tmpfs | Kind::Overlay | Kind::Ramfs => {}
        }
        Self::mount(folder, "fs", kind, &image, bytes)
    }

    /// Mounts an image of [`LoopFs::make`], or a copy of one, at `name` in `folder`. What its journal has
    /// is replayed.
    pub(crate) fn mount(folder: &Path, name: &str, kind: Kind, image: &Path, bytes: u64) -> Self {
        let mount_point = folder.join(name);
        fs::create_dir_all(&mount_point).unwrap();
        let mut mounted = Self {
            mount_point: mount_point.clone(),
            image: image.to_owned(),
            below: None,
        };
        let tmpfs = |at: &Path| {
            let size = format!("size={bytes},mode=700");
            run(Command::new("mount")
                .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
                .arg(at));
        };
        match kind {
            Kind::Tmpfs => tmpfs(&mount_point),
            Kind::Ramfs => run(Command::new("mount")
                .args(["-t", "ramfs", "ramfs"])
                .arg(&mount_point)),
            Kind::Overlay => {
                let below = folder.join("below");
                fs::create_dir_all(&below).unwrap();
                tmpfs(&below);
                mounted.below = Some(below.clone());
                for layer in ["lower", "upper", "work"] {
                    fs::create_dir(below.join(layer)).unwrap();
                }
                let layers = format!(
                    "lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work",
                    below.display()
                );
                run(Command::new("mount")
                    .args(["-t", "overlay", "-o", &layers, "overlay"])
                    .arg(&mount_point));
            }
            Kind::Ext4 | Kind::Xfs | Kind::Btrfs => {
                // A copy of an XFS filesystem has the identity of the first.
                let options = match kind {
                    Kind::Xfs => "loop,nouuid",
                    _ => "loop",
                };
                run(Command::new("mount")
                    .args(["-o", options])
                    .arg(image)
                    .arg(&mount_point));
            }
        }
        mounted
    }

    /// A new directory in it.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.mount_point.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        path
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mount_point
    }

    /// The file that stands for its block device.
    pub(crate) fn image(&self) -> &Path {
        &self.image
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        let places = [Some(&self.mount_point), self.below.as_ref()];
        for place in places.into_iter().flatten() {
            // Detached where it is busy still: a failed test's daemon may be ending just now.
            if rustix::mount::unmount(place, UnmountFlags::empty()).is_err() {
                let _ = rustix::mount::unmount(place, UnmountFlags::DETACH);
            }
        }
    }
}

/// A folder on a filesystem that can copy a file at one instant, for the images of others.
pub(crate) fn snapshot_host(folder: &Path, bytes: u64) -> LoopFs {
    let host = folder.join("host");
    fs::create_dir(&host).unwrap();
    LoopFs::make(&host, Kind::Xfs, bytes.max(Kind::Xfs.least_size()))
}

/// Copies `image` at one instant: what the filesystem on it had written to its device by then.
pub(crate) fn snapshot(image: &Path, copy: &Path) {
    let (image, copy) = (File::open(image).unwrap(), File::create(copy).unwrap());
    rustix::fs::ioctl_ficlone(copy, image).unwrap();
}
