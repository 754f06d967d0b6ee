//! `kidafs clear`: the engine's `BytecodeCache.clear`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::target::Target;
use super::{Outcome, Output, print};
use crate::format::name::{is_counted, is_counted_for};
use crate::format::{Pattern, VersionTag};
use crate::kida::BytecodeCache;

/// Remove all entries, and print their number
#[derive(Args)]
pub(super) struct Clear {
    /// The cache: a mount point or a plain directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Only the entries of the interpreter that --version-tag names
    #[arg(long)]
    current_version_only: bool,

    /// The interpreter's tag
    #[arg(long, value_name = "TAG", default_value_t)]
    version_tag: VersionTag,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Clear {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        Target::open(&self.dir)?;
        let dir = self.dir.display();
        let python = self.version_tag.python().to_owned();
        let cache = BytecodeCache::existing(&self.dir, Pattern::default());
        let cache = cache.with_version(self.version_tag);
        let there = fs::read_dir(&self.dir)
            .with_context(|| format!("cannot list {dir}"))?
            .filter_map(Result::ok)
            .filter(|file| {
                if self.current_version_only {
                    is_counted_for(&file.file_name(), &python)
                } else {
                    is_counted(&file.file_name())
                }
            })
            .count() as u64;
        let removed = cache
            .clear(self.current_version_only)
            .with_context(|| format!("cannot list {dir}"))?;
        if self.json {
            print::json(out, &json!({ "removed": removed }))?;
        } else {
            writeln!(out, "{removed}")?;
        }
        // The engine says nothing of those; whoever clears a cache by hand wants to know.
        not_removed(out, &self.dir, there.saturating_sub(removed))
    }
}

/// The outcome when so many entries should have gone and are still there.
pub(super) fn not_removed(out: Output<'_>, dir: &Path, left: u64) -> Outcome {
    if left == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    out.flush()?;
    bail!(
        "{left} entries of {} could not be removed: look at their owner with `ls -l`",
        dir.display()
    )
}
