//! What is at a directory that is, or is to be, served.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::{Finding, is_root};
use crate::cli::first_sweep;
use crate::cli::print;
use crate::cli::survey::{self, Survey};
use crate::cli::target::Target;
use crate::config::Config;
use crate::daemon::mountpoint::{self, State};
use crate::format::engine::Engines;
use crate::layout::STATS_JSON;
use crate::stats::Stats;
use crate::tier::DIGEST_XATTR;

/// The checks of one directory. What is wrong with the path itself makes the others pointless.
pub(super) fn check(dir: &Path, config: &Config) -> Vec<Finding> {
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
                sources(dir),
                next_sweep(dir, config),
            ]
        }
        State::Directory => vec![
            Finding::ok(CHECK, format!("{shown} is a plain directory")),
            owner(dir),
            attributes(dir),
            free_space(dir, config),
            contents(&found.path, config),
            next_sweep(dir, config),
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
            if mode & 0o1000 != 0 {
                "make a directory of your own in it, and serve that".to_owned()
            } else {
                format!("run `chmod o-w {shown}`")
            },
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
    let told = Target::open(dir).and_then(|target| target.hidden_json::<Stats>(STATS_JSON));
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
    match rustix::fs::fsetxattr(&file, DIGEST_XATTR, &[0; 32], XattrFlags::empty()) {
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

/// Whether it is a cache directory at all.
fn contents(dir: &Path, config: &Config) -> Finding {
    const CHECK: &str = "contents";
    let survey = Survey::of(dir, &Engines::new(config.pattern.clone()));
    if let Some(objection) = survey::objection(dir, &survey) {
        return Finding::note(
            CHECK,
            format!("`kidafs mount` refuses it: {objection}"),
            "only what is known to be a cache entry would ever be removed",
        );
    }
    match survey.sentence(dir) {
        Some(sentence) => Finding::note(
            CHECK,
            sentence,
            "if this is not the cache directory, name that one",
        ),
        None => Finding::ok(CHECK, format!("{} cache entries", survey.entries)),
    }
}

/// How much of the cache is known to be fresh.
fn sources(dir: &Path) -> Finding {
    const CHECK: &str = "sources";
    let told = Target::open(dir).and_then(|target| target.hidden_json::<Stats>(STATS_JSON));
    let verdicts = told.ok().flatten().map(|stats| stats.verdicts);
    let verdicts = verdicts.unwrap_or_default();
    let count = |wanted: Option<&str>| -> u64 {
        let all = verdicts.values().flatten();
        let counted = all.filter(|(verdict, _)| wanted.is_none_or(|wanted| wanted == *verdict));
        counted.map(|(_, count)| count).sum()
    };
    match count(None) {
        0 => Finding::ok(CHECK, "no entry's source was looked at yet"),
        all => Finding::ok(
            CHECK,
            format!(
                "{} of {all} entries are known to be fresh",
                count(Some("fresh"))
            ),
        ),
    }
}

/// What the evictor would do.
fn next_sweep(dir: &Path, config: &Config) -> Finding {
    const CHECK: &str = "next sweep";
    match first_sweep::of(dir, config) {
        Ok(plan) if plan.is_empty() => Finding::ok(CHECK, "would remove nothing"),
        Ok(plan) => {
            let mut reasons = std::collections::BTreeMap::<_, usize>::new();
            for victim in &plan {
                *reasons.entry(victim.reason).or_default() += 1;
            }
            let reasons = reasons
                .iter()
                .map(|(reason, count)| format!("{count} {reason}"));
            let reasons: Vec<_> = reasons.collect();
            Finding::ok(
                CHECK,
                format!("would remove {} files ({})", plan.len(), reasons.join(", ")),
            )
        }
        Err(error) => Finding::note(
            CHECK,
            format!("cannot be foretold ({error})"),
            "run this as the directory's owner",
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
            "make room on it: entries are evicted as far as that is enough, and none if it is not",
        )
    } else if status.f_files > 0 && status.f_favail == 0 {
        Finding::fail(CHECK, "no inode is left", "remove files")
    } else {
        Finding::ok(CHECK, found)
    }
}
