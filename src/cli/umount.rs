//! `kidafs umount`.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{Outcome, Output, list, print};
use crate::daemon::unmount::{self, Limits, UnmountError, Unmounted};

/// Says to this program, run anew by itself, that the daemon does not answer.
const UNASKED: &str = "KIDAFS_UMOUNT_UNASKED";

/// How long a daemon may take to end, if nothing else is said.
const LIMIT: Duration = Duration::from_secs(30);

/// Write everything, unmount, and wait for the daemon to end
#[derive(Args)]
pub(super) struct Umount {
    /// The mount points
    #[arg(value_name = "DIR", required_unless_present = "all")]
    dirs: Vec<PathBuf>,

    /// All mounts of this user; as root, all of this machine
    #[arg(long, conflicts_with = "dirs")]
    all: bool,

    /// Detach a mount that is in use: it ends when its last file is closed
    #[arg(long)]
    lazy: bool,

    /// How long to wait for files to be closed [default: 2s], and for the daemon to end [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = super::print::duration)]
    timeout: Option<Duration>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Umount {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let dirs = if self.all { own()? } else { self.dirs.clone() };
        let [dir] = dirs.as_slice() else {
            return self.end_each(out, &dirs);
        };
        self.end(out, dir)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Ends each, and goes on where one cannot be ended.
    fn end_each(&self, out: Output<'_>, dirs: &[PathBuf]) -> Outcome {
        let mut worst = ExitCode::SUCCESS;
        for dir in dirs {
            if let Err(error) = self.end(out, dir) {
                worst = super::report(&error);
            }
        }
        Ok(worst)
    }

    fn end(&self, out: Output<'_>, dir: &Path) -> anyhow::Result<()> {
        let (word, note) = match self.unmount(dir)? {
            Unmounted::Ended => ("ended", None),
            Unmounted::NotWaited => (
                "not-waited",
                Some("its daemon belongs to another user and may still be writing"),
            ),
            Unmounted::Detached => (
                "detached",
                Some("it is in use, and its daemon goes on until the last file is closed"),
            ),
            Unmounted::Dead => ("dead", Some("its daemon had died")),
        };
        if self.json {
            print::json(out, &json!({ "unmounted": word }))?;
        } else if let Some(note) = note {
            writeln!(out, "{} is unmounted; {note}", dir.display())?;
        }
        Ok(())
    }

    fn unmount(&self, dir: &Path) -> Result<Unmounted, UnmountError> {
        let limits = match self.timeout {
            Some(time) => Limits {
                busy: time,
                end: time,
            },
            None => LIMIT.into(),
        };
        if std::env::var_os(UNASKED).is_some() {
            return unmount::unmount_unasked(dir, limits);
        }
        match unmount::unmount(dir, self.lazy, limits) {
            // The thread that waits for its answer keeps the mount busy, until this process runs a program anew.
            Err(silent @ UnmountError::Silent { .. }) if self.dirs.len() == 1 => {
                let mut again = std::process::Command::new("/proc/self/exe");
                again.args(std::env::args_os().skip(1)).env(UNASKED, "1");
                let error = again.exec();
                log::debug!("not run anew: {error}");
                Err(silent)
            }
            result => result,
        }
    }
}

/// The mounts that this user may end.
fn own() -> anyhow::Result<Vec<PathBuf>> {
    let user = rustix::process::geteuid();
    let mut dirs = list::mounted()?;
    dirs.retain(|dir| user.is_root() || list::owner(dir) == Some(user.as_raw()));
    Ok(dirs)
}
