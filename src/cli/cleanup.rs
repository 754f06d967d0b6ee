//! `kidafs cleanup`: the engine's `BytecodeCache.cleanup`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::clear::not_removed;
use super::print::{self, Side, Table};
use super::target::Target;
use super::{Outcome, Output};
use crate::clock::{Clock, SystemClock};
use crate::format::Pattern;
use crate::kida::{BytecodeCache, Victim};
use crate::layout::ENTRIES_JSONL;
use crate::stats::{EntryRow, time_of, unix_seconds};

const DAY_SECONDS: u64 = 24 * 3600;

/// Remove entries that were last written long ago, and print their number
#[derive(Args)]
pub(super) struct Cleanup {
    /// The cache: a mount point or a plain directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// The age in days from which entries are removed
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    max_age_days: u32,

    /// List what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What the engine's `cleanup` removes. On a mount the daemon's own list tells it, because looking at
/// an entry is what the daemon counts as its use.
fn victims(target: &Target, age: Duration) -> anyhow::Result<Vec<Victim>> {
    let Some(rows) = target.hidden_lines::<EntryRow>(ENTRIES_JSONL)? else {
        return BytecodeCache::existing(&target.dir, Pattern::default())
            .victims(age, &SystemClock)
            .with_context(|| format!("cannot list {}", target.dir.display()));
    };
    let Some(threshold) = SystemClock.now().checked_sub(age) else {
        return Ok(Vec::new());
    };
    let victims = rows
        .into_iter()
        .filter(|row| row.is_counted() && time_of(row.committed_unix_seconds) < threshold)
        .map(|row| Victim {
            path: target.dir.join(&row.path),
            size: row.size_bytes,
            modified: time_of(row.committed_unix_seconds),
        });
    Ok(victims.collect())
}

/// Whether a file is gone; one that somebody else has removed counts, as with the engine.
fn remove(path: &Path) -> bool {
    match fs::remove_file(path) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

impl Cleanup {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let target = Target::open(&self.dir)?;
        let age = Duration::from_secs(u64::from(self.max_age_days) * DAY_SECONDS);
        let victims = victims(&target, age)?;
        if self.dry_run {
            self.show(out, &victims)?;
            return Ok(ExitCode::SUCCESS);
        }
        let removed = victims.iter().filter(|victim| remove(&victim.path)).count() as u64;
        if self.json {
            print::json(out, &json!({ "removed": removed }))?;
        } else {
            writeln!(out, "{removed}")?;
        }
        let left = (victims.len() as u64).saturating_sub(removed);
        not_removed(out, &self.dir, left)
    }

    fn show(&self, out: Output<'_>, victims: &[Victim]) -> io::Result<()> {
        if self.json {
            let victims: Vec<_> = victims
                .iter()
                .map(|victim| {
                    json!({
                        "file": victim.path.to_string_lossy(),
                        "size_bytes": victim.size,
                        "modified_unix_seconds": unix_seconds(victim.modified),
                    })
                })
                .collect();
            return print::json(out, &victims);
        }
        let now = SystemTime::now();
        let mut table = Table::new([
            ("AGE", Side::Right),
            ("SIZE", Side::Right),
            ("FILE", Side::Left),
        ]);
        for victim in victims {
            table.add([
                print::age(victim.modified, now),
                print::size(victim.size),
                victim.path.to_string_lossy().into_owned(),
            ]);
        }
        table.print(out)
    }
}
