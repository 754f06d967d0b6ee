//! `kidafs doctor`: whether this machine and this directory can have a mount, and what to do if
//! not.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::options::{self, MountOptions};
use super::target::Target;
use super::{Outcome, Output, print, trial};
use crate::config::Config;
use crate::daemon::mountpoint::{self, State};
use crate::stats::Stats;

/// Since then a mount's number can be told without asking its daemon (statx's STATX_MNT_ID); all
/// that is asked of FUSE is older.
const OLDEST_KERNEL: (u32, u32) = (5, 8);

/// Check what a mount needs, one line each, with its cure
#[derive(Args)]
pub(super) struct Doctor {
    /// A directory that is, or is to be, served
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// It works, less well than it could.
    Note,
    Fail,
}

#[derive(Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    cure: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Ok,
            found: found.into(),
            cure: None,
        }
    }

    fn note(check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Note,
            found: found.into(),
            cure: Some(cure.into()),
        }
    }

    fn fail(check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::note(check, found, cure)
        }
    }
}

impl Doctor {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let mut findings = vec![device(), helper(), kernel()];
        // Where one of those fails a trial could only say so again.
        if findings.iter().all(|f| f.verdict != Verdict::Fail) {
            findings.extend(trial());
        }
        findings.push(latency());
        let config = match options::resolve(&MountOptions::default()) {
            Ok(resolved) => {
                findings.push(Finding::ok(
                    "options",
                    "those of variables and files are valid",
                ));
                resolved.config
            }
            Err(error) => {
                findings.push(Finding::fail("options", error.to_string(), "correct it"));
                Config::default()
            }
        };
        if let Some(dir) = &self.dir {
            findings.extend(directory(dir, &config));
        }
        if self.json {
            print::json(out, &findings)?;
        } else {
            for finding in &findings {
                let verdict = match finding.verdict {
                    Verdict::Ok => "ok",
                    Verdict::Note => "note",
                    Verdict::Fail => "FAIL",
                };
                let mut text = format!("{verdict:<5} {:<12} {}", finding.check, finding.found);
                if let Some(cure) = &finding.cure {
                    text.push_str(": ");
                    text.push_str(cure);
                }
                writeln!(out, "{}", print::clean(&text))?;
            }
        }
        let failed = findings.iter().any(|f| f.verdict == Verdict::Fail);
        Ok(if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn device() -> Finding {
    const CHECK: &str = "/dev/fuse";
    const CURE: &str = "run `modprobe fuse`, or start the container with --device /dev/fuse";
    match fs::metadata(CHECK) {
        Ok(status) if !status.file_type().is_char_device() => {
            Finding::fail(CHECK, "is no device", CURE)
        }
        Ok(_) if !is_root() => Finding::ok(CHECK, "is there; fusermount3 opens it"),
        Ok(_) => match fs::File::options().read(true).write(true).open(CHECK) {
            Ok(_) => Finding::ok(CHECK, "can be opened"),
            Err(error) => Finding::fail(CHECK, format!("cannot be opened ({error})"), CURE),
        },
        Err(error) => Finding::fail(CHECK, format!("is missing ({error})"), CURE),
    }
}

fn helper() -> Finding {
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

fn kernel() -> Finding {
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
fn trial() -> Vec<Finding> {
    const CHECK: &str = "trial mount";
    let stats = match trial::mount() {
        Ok(stats) => stats,
        Err(found) => {
            let cure = "in a container give it --device /dev/fuse and --cap-add SYS_ADMIN; otherwise do what it says";
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

fn latency() -> Finding {
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

/// The checks of one directory. What is wrong with the path itself makes the others pointless.
fn directory(dir: &Path, config: &Config) -> Vec<Finding> {
    const CHECK: &str = "directory";
    let shown = dir.display();
    let found = match mountpoint::inspect(dir) {
        Ok(found) => found,
        Err(error) => return vec![Finding::fail(CHECK, error.to_string(), "name another one")],
    };
    match found.state {
        State::Missing => vec![Finding::ok(
            CHECK,
            format!("{shown} is missing; `kidafs mount` creates it with mode 0700"),
        )],
        State::Dead(_) => vec![Finding::fail(
            CHECK,
            format!("the daemon of {shown} has died"),
            format!("run `kidafs mount {shown}` to serve it again, or `kidafs umount {shown}`"),
        )],
        State::Silent(_) => vec![Finding::fail(
            CHECK,
            format!("the daemon of {shown} does not answer"),
            format!("look at its log, or run `kidafs umount --lazy {shown}`"),
        )],
        State::Live { pid, .. } => {
            let daemon = pid.map_or_else(String::new, |pid| format!(" by process {pid}"));
            vec![
                Finding::ok(CHECK, format!("{shown} is served{daemon}")),
                owner(dir),
                digests(dir),
                free_space(dir, config),
            ]
        }
        State::Directory => vec![
            Finding::ok(CHECK, format!("{shown} is a plain directory")),
            owner(dir),
            attributes(dir),
            free_space(dir, config),
        ],
    }
}

fn owner(dir: &Path) -> Finding {
    const CHECK: &str = "owner, mode";
    let status = match fs::metadata(dir) {
        Ok(status) => status,
        Err(error) => return Finding::fail(CHECK, error.to_string(), "name another directory"),
    };
    let (owner, mode) = (status.uid(), status.mode() & 0o7777);
    let me = rustix::process::geteuid().as_raw();
    let shown = dir.display();
    let found = format!("user {owner}, mode {mode:04o}");
    if mode & 0o002 != 0 {
        Finding::fail(
            CHECK,
            format!("{found}: everybody could plant code there"),
            format!("run `chmod o-w {shown}`"),
        )
    } else if owner != me && owner != 0 {
        let cure = format!("run as that user, or `chown {me} {shown}`");
        let found = format!("{found}: that user could plant code there");
        if is_root() {
            // A service's own cache, which root serves to it with --allow-other.
            Finding::note(CHECK, found, cure)
        } else {
            Finding::fail(CHECK, found, cure)
        }
    } else if mode & 0o020 != 0 {
        Finding::note(
            CHECK,
            format!("{found}: its group could plant code there"),
            format!("unless a team shares it, run `chmod g-w {shown}`"),
        )
    } else {
        Finding::ok(CHECK, found)
    }
}

/// Whether the daemon of a mount stores digests.
fn digests(dir: &Path) -> Finding {
    const CHECK: &str = "attributes";
    let told = Target::open(dir).and_then(|target| target.hidden_json::<Stats>("stats.json"));
    match told {
        Ok(Some(stats)) if stats.digests => {
            Finding::ok(CHECK, "user extended attributes hold the digests")
        }
        Ok(Some(_)) => Finding::note(
            CHECK,
            "the backing directory has no user extended attributes, so digests do not outlive the daemon",
            KEEP_ELSEWHERE,
        ),
        Ok(None) => Finding::note(
            CHECK,
            "its daemon tells nothing",
            "mount again with this version",
        ),
        Err(error) => Finding::note(
            CHECK,
            format!("its daemon cannot be asked ({error})"),
            "run this as the mount's user",
        ),
    }
}

const KEEP_ELSEWHERE: &str = "keep the cache on ext4, xfs, btrfs or a newer tmpfs (--backing)";

/// Whether digests can be stored, tried on a file without a name.
fn attributes(dir: &Path) -> Finding {
    const CHECK: &str = "attributes";
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = match rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => file,
        Err(errno @ (Errno::OPNOTSUPP | Errno::ISDIR)) => {
            return Finding::note(
                CHECK,
                format!("cannot be tried here ({errno})"),
                "see `digests` in `kidafs stats` after mounting",
            );
        }
        Err(errno) => {
            return Finding::fail(
                CHECK,
                format!("{} cannot be written ({errno})", dir.display()),
                "give yourself the right to, or mount with --read-only",
            );
        }
    };
    match rustix::fs::fsetxattr(&file, "user.kidafs.sha256", &[0; 32], XattrFlags::empty()) {
        Ok(()) => Finding::ok(CHECK, "user extended attributes hold the digests"),
        Err(errno) => Finding::note(
            CHECK,
            format!(
                "user extended attributes are not possible ({errno}), so digests do not outlive the daemon"
            ),
            KEEP_ELSEWHERE,
        ),
    }
}

fn free_space(dir: &Path, config: &Config) -> Finding {
    const CHECK: &str = "free space";
    let status = match rustix::fs::statvfs(dir) {
        Ok(status) => status,
        Err(errno) => return Finding::fail(CHECK, errno.to_string(), "name another directory"),
    };
    let available = status.f_bavail.saturating_mul(status.f_frsize);
    let total = status.f_blocks.saturating_mul(status.f_frsize);
    let keep = config.keep_free.bytes_of(total);
    let found = format!("{} of {}", print::size(available), print::size(total));
    if available < keep {
        Finding::note(
            CHECK,
            format!("{found} is less than --keep-free ({})", print::size(keep)),
            "make room, or the evictor empties the cache",
        )
    } else if status.f_files > 0 && status.f_favail == 0 {
        Finding::fail(CHECK, "no inode is left", "remove files")
    } else {
        Finding::ok(CHECK, found)
    }
}
