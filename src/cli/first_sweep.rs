//! `kidafs mount --check`: what the first sweep would remove, before there is a mount.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use serde_json::json;

use super::survey::{Survey, objection};
use super::sweep;
use super::target::Target;
use super::{Outcome, Output, print};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::format::engine::Engines;
use crate::layout::PLAN_JSONL;
use crate::stats::PlanRow;
use crate::vfs::{About, Notices, Vfs};

/// What the first sweep of a plain directory would remove, by the daemon's own planner. Nothing is changed.
///
/// # Errors
/// When the directory cannot be read.
pub(super) fn of_directory(dir: &Path, config: &Config) -> anyhow::Result<Vec<PlanRow>> {
    let opened = || -> Result<Vfs, std::io::Error> {
        let root = std::fs::File::open(dir)?;
        let config = Config {
            read_only: true,
            ..config.clone()
        };
        let clock = Arc::new(SystemClock);
        let about = About::default();
        Vfs::open(root.into(), config, clock, Notices::none(), about, None)
            .map_err(|error| std::io::Error::from(error.errno()))
    };
    let vfs = opened().with_context(|| format!("cannot read {}", dir.display()))?;
    Ok(vfs.first_sweep())
}

/// What the next sweep of a mount, or the first of a plain directory, would remove.
///
/// # Errors
/// When the directory cannot be read, or its daemon not be asked.
pub(super) fn of(dir: &Path, config: &Config) -> anyhow::Result<Vec<PlanRow>> {
    let target = Target::open(dir)?;
    if target.mount.is_none() {
        return of_directory(config.backing.as_deref().unwrap_or(dir), config);
    }
    let plan = target.hidden_lines(PLAN_JSONL)?;
    plan.with_context(|| {
        format!(
            "the daemon of {} does not tell its plan: mount again with this version",
            dir.display()
        )
    })
}

/// Prints what is known before the first mount. The status is 0 whatever that is.
pub(super) fn check(out: Output<'_>, dir: &Path, config: &Config, as_json: bool) -> Outcome {
    let plan = of(dir, config)?;
    let kept = config.backing.as_deref().unwrap_or(dir);
    let kept = std::fs::canonicalize(kept).unwrap_or_else(|_| kept.to_owned());
    let survey = Survey::of(&kept, &Engines::new(config.pattern.clone()));
    let refused = objection(&kept, &survey).filter(|_| !config.adopt);
    if as_json {
        print::json(
            out,
            &json!({
                "directory": kept.to_string_lossy(),
                "entries": survey.entries,
                "foreign": survey.foreign,
                "foreign_example": survey.example.as_ref().map(|path| path.to_string_lossy()),
                "refused": refused,
                "plan": sweep::victims(&plan),
            }),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{} cache entries", survey.entries)?;
    if let Some(sentence) = survey.sentence(&kept) {
        writeln!(out, "{}", print::clean(&sentence))?;
    }
    if let Some(refused) = refused {
        writeln!(out, "mount would refuse: {}", print::clean(&refused))?;
    }
    writeln!(out, "the first sweep would remove {} files", plan.len())?;
    if plan.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    sweep::show(out, &plan, false)
}
