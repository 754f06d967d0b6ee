//! `kidafs list`: the mounts of this machine, with their numbers.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::print::{self, Side, Table};
use super::target::Target;
use super::{Outcome, Output};
use crate::daemon::mountinfo;
use crate::daemon::mountpoint::{self, State};
use crate::layout::STATS_JSON;
use crate::stats::Stats;

/// List the mounts, with their numbers
#[derive(Args)]
pub(super) struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How long a mount may take to answer, of perhaps many.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Line {
    dir: String,
    /// `live`, `dead` or `silent`.
    state: &'static str,
    user: Option<u32>,
    pid: Option<i32>,
    files: Option<u64>,
    bytes: Option<u64>,
}

/// Where kidafs is mounted, as this process sees it, each place once.
///
/// # Errors
/// When there is no table of mounts.
pub(super) fn mounted() -> anyhow::Result<Vec<PathBuf>> {
    let mut dirs: Vec<_> = mountinfo::read()?
        .into_iter()
        .filter(mountinfo::Mount::is_kidafs)
        .map(|mount| mount.mount_point)
        .collect();
    dirs.sort();
    dirs.dedup();
    Ok(dirs)
}

/// Whom the kernel says that the mount at `dir` is for.
pub(super) fn owner(dir: &Path) -> Option<u32> {
    let mounts = mountinfo::read().ok()?;
    mountinfo::top(&mounts, dir)?.user_id()
}

impl List {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let lines: Vec<_> = mounted()?.iter().filter_map(|dir| line(dir)).collect();
        if self.json {
            print::json(out, &lines)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut table = Table::new([
            ("STATE", Side::Left),
            ("USER", Side::Right),
            ("PROCESS", Side::Right),
            ("FILES", Side::Right),
            ("SIZE", Side::Right),
            ("DIR", Side::Left),
        ]);
        let number = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
        for line in lines {
            table.add([
                line.state.to_owned(),
                number(line.user.map(|user| user.to_string())),
                number(line.pid.map(|pid| pid.to_string())),
                number(line.files.map(|files| files.to_string())),
                number(line.bytes.map(print::size)),
                line.dir,
            ]);
        }
        table.print(out)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What is at a mount point; `None` if it is gone meanwhile, or covered by something else.
fn line(dir: &Path) -> Option<Line> {
    let found = mountpoint::inspect_within(dir, PATIENCE).ok()?;
    let (state, mount, pid) = match found.state {
        State::Live { mount, pid } => ("live", mount, pid),
        State::Dead(mount) => ("dead", mount, None),
        State::Silent(mount) => ("silent", mount, None),
        State::Missing | State::Directory => return None,
    };
    let stats: Option<Stats> = (state == "live")
        .then(|| {
            Target::open(dir)
                .and_then(|target| target.hidden_json(STATS_JSON))
                .ok()
        })
        .flatten()
        .flatten();
    Some(Line {
        dir: dir.to_string_lossy().into_owned(),
        state,
        user: mount.user_id(),
        pid: pid.map(|pid| pid.as_raw_nonzero().get()),
        files: stats.as_ref().map(|stats| stats.disk.files),
        bytes: stats.as_ref().map(|stats| stats.disk.bytes),
    })
}
