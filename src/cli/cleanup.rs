//! `kidafs cleanup`: the engine's `BytecodeCache.cleanup`.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::clear::not_removed;
use super::print::{self, Side, Table};
use super::target::Target;
use super::{Outcome, Output};
use crate::cache::{BytecodeCache, Victim};
use crate::clock::SystemClock;
use crate::format::Pattern;
use crate::stats::unix_seconds;

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

impl Cleanup {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        Target::open(&self.dir)?;
        let list = || format!("cannot list {}", self.dir.display());
        let cache = BytecodeCache::existing(&self.dir, Pattern::default());
        let age = Duration::from_secs(u64::from(self.max_age_days) * DAY_SECONDS);
        let victims = cache.victims(age, &SystemClock).with_context(list)?;
        if self.dry_run {
            self.show(out, &victims)?;
            return Ok(ExitCode::SUCCESS);
        }
        let removed = cache.cleanup(age, &SystemClock).with_context(list)?;
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
