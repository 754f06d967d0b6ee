//! `kidafs clear`: the engine's `BytecodeCache.clear`, and the same for the entries of other engines.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::target::Target;
use super::{Outcome, Output, listing, print};
use crate::format::engine::HEAD_LEN;
use crate::format::name::{is_counted, is_counted_for};
use crate::format::{Engine, Engines, Pattern, VersionTag};
use crate::kida::BytecodeCache;

/// Remove all entries of every engine, and print their number
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
        let mut removed = cache
            .clear(self.current_version_only)
            .with_context(|| format!("cannot list {dir}"))?;
        let mut left = there.saturating_sub(removed);
        if !self.current_version_only {
            let others = clear_others(&self.dir)?;
            removed += others.removed;
            left += others.left;
        }
        if self.json {
            print::json(out, &json!({ "removed": removed }))?;
        } else {
            writeln!(out, "{removed}")?;
        }
        // The engine says nothing of those; whoever clears a cache by hand wants to know.
        not_removed(out, &self.dir, left)
    }
}

/// What became of the entries of the engines that kida's own `clear` does not know.
#[derive(Default)]
struct Others {
    removed: u64,
    left: u64,
}

/// Removes the entries of Jinja2, Mako and importlib, by name and form. All else stays.
fn clear_others(dir: &Path) -> anyhow::Result<Others> {
    let engines = Engines::new(Pattern::default());
    let mut others = Others::default();
    for file in listing::files(dir)? {
        let mut head = Vec::new();
        let read = listing::open_quietly(&dir.join(&file.path))
            .and_then(|file| file.take(HEAD_LEN as u64).read_to_end(&mut head));
        let kind = engines.recognise(&file.path, &head);
        let is_others =
            kind.is_entry() && kind.engine().is_some_and(|engine| engine != Engine::Kida);
        if read.is_err() || !is_others {
            continue;
        }
        match listing::remove(dir, &file.path) {
            Ok(()) => others.removed += 1,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(_) => others.left += 1,
        }
    }
    Ok(others)
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
