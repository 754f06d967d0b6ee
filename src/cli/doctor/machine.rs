//! What the machine offers a mount.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::{Finding, is_root, trial};

/// Since then a mount's number can be told without asking its daemon (statx's STATX_MNT_ID); all
/// that is asked of FUSE is older.
const OLDEST_KERNEL: (u32, u32) = (5, 8);

pub(super) fn device() -> Finding {
    const CHECK: &str = "/dev/fuse";
    const CURE: &str = "run `modprobe fuse`, or start the container with --device /dev/fuse";
    const RIGHTS: &str = "give it its usual mode (chmod 666 /dev/fuse); in a container allow it with --device /dev/fuse";
    match fs::metadata(CHECK) {
        Ok(status) if !status.file_type().is_char_device() => {
            Finding::fail(CHECK, "is no device", CURE)
        }
        // fusermount3 opens it with the rights of the user who called it.
        Ok(_) => match fs::File::options().read(true).write(true).open(CHECK) {
            Ok(_) => Finding::ok(CHECK, "can be opened"),
            Err(error) => Finding::fail(CHECK, format!("cannot be opened ({error})"), RIGHTS),
        },
        Err(error) => Finding::fail(CHECK, format!("is missing ({error})"), CURE),
    }
}

pub(super) fn helper() -> Finding {
    const CHECK: &str = "fusermount3";
    const CURE: &str = "install the package fuse3";
    let found = std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .map(|folder| folder.join(CHECK))
        .find(|path| path.is_file());
    match found {
        None if is_root() => Finding::ok(CHECK, "is missing, and root does without it"),
        None => Finding::fail(CHECK, "is missing, and only root mounts without it", CURE),
        Some(path) => match fs::metadata(&path) {
            Ok(status) if status.mode() & 0o4000 == 0 && !is_root() => Finding::note(
                CHECK,
                format!("{} is not setuid", path.display()),
                "if mounting fails, run `chmod u+s` on it as root",
            ),
            _ => Finding::ok(CHECK, path.display().to_string()),
        },
    }
}

pub(super) fn kernel() -> Finding {
    const CHECK: &str = "kernel";
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST_KERNEL {
        let (major, minor) = OLDEST_KERNEL;
        return Finding::fail(
            CHECK,
            format!("Linux {release} is too old"),
            format!("use Linux {major}.{minor} or later"),
        );
    }
    let known = fs::read_to_string("/proc/filesystems")
        .is_ok_and(|list| list.lines().any(|line| line.trim_end().ends_with("\tfuse")));
    if known {
        Finding::ok(CHECK, format!("Linux {release} has FUSE"))
    } else {
        Finding::fail(
            CHECK,
            format!("Linux {release} has no FUSE"),
            "run `modprobe fuse`",
        )
    }
}

/// What the kernel agrees to, asked by mounting for a moment.
pub(super) fn trial() -> Vec<Finding> {
    const CHECK: &str = "trial mount";
    let stats = match trial::mount() {
        Ok(stats) => stats,
        Err(found) => {
            let cure = "do what it says; a container also needs --device /dev/fuse and --cap-add SYS_ADMIN";
            return vec![Finding::fail(CHECK, found, cure)];
        }
    };
    let mounted = Finding::ok(CHECK, "was mounted, answered and was unmounted");
    vec![mounted, capabilities(&stats.kernel)]
}

/// What a hit without a message needs.
const ZERO_MESSAGES: [&str; 2] = ["no_open_support", "no_opendir_support"];

fn capabilities(agreed: &[String]) -> Finding {
    const CHECK: &str = "capabilities";
    let missing: Vec<_> = ZERO_MESSAGES
        .into_iter()
        .filter(|wanted| !agreed.iter().any(|name| name == wanted))
        .collect();
    if missing.is_empty() {
        return Finding::ok(CHECK, agreed.join(", "));
    }
    Finding::note(
        CHECK,
        format!(
            "the kernel does not offer {}, so each hit costs messages",
            missing.join(" and ")
        ),
        "use Linux 5.1 or later",
    )
}

pub(super) fn latency() -> Finding {
    const CHECK: &str = "cpu latency";
    let path = "/dev/cpu_dma_latency";
    // Opened, because a container may refuse what the file's mode allows. Nothing is asked for until it is written to.
    match fs::File::options().write(true).open(path) {
        Ok(_) => Finding::ok(CHECK, "idle states can be held off in bursts"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::note(
            CHECK,
            format!("{path} is missing, so a message to an idle CPU takes longer"),
            "give the container that device, or leave it: everything works without",
        ),
        Err(error) => Finding::note(
            CHECK,
            format!("{path} cannot be opened ({error}), so a message to an idle CPU takes longer"),
            "give the daemon's group the right by a udev rule, KERNEL==\"cpu_dma_latency\", GROUP=\"…\", MODE=\"0660\"",
        ),
    }
}
