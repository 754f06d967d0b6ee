//! `kidafs sweep`: makes the daemon's evictor run now, or shows what it would do.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use rustix::fs::{AtFlags, Timespec, Timestamps};
use rustix::io::Errno;
use serde_json::json;

use super::print::{self, Side, Table};
use super::target::Target;
use super::{Outcome, Output};
use crate::layout::{PLAN_JSONL, STATS_JSON, SWEEP};
use crate::stats::{PlanRow, Stats};

/// Make the evictor of a mount run now, and return when it has
#[derive(Args)]
pub(super) struct Sweep {
    /// The mount point
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Show each victim with its reason, and remove nothing
    #[arg(long)]
    dry_run: bool,

    /// How long to wait for the sweep
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = super::print::duration)]
    timeout: Duration,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Sweep {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let target = Target::open_mount(&self.dir)?;
        if self.dry_run {
            self.show(out, &target)
        } else {
            self.sweep(out, &target)
        }
    }

    /// Has the daemon sweep, and waits for a sweep that began after this command did.
    fn sweep(&self, out: Output<'_>, target: &Target) -> Outcome {
        let dir = self.dir.display();
        let others = format!(
            "the daemon of {dir} belongs to another user: only that user or root can make it sweep"
        );
        let before = stats(target)?;
        if before.read_only {
            bail!("{dir} is served read-only, so nothing is evicted: mount it without --read-only");
        }
        match ask(target) {
            Err(Errno::PERM | Errno::ACCESS) => bail!(others),
            asked => asked.with_context(|| format!("cannot ask the daemon of {dir} to sweep"))?,
        }
        let wanted = before.sweeps + u64::from(before.sweeping) + 1;
        let deadline = Instant::now() + self.timeout;
        let mut pause = SHORTEST_PAUSE;
        let after = loop {
            let now = stats(target)?;
            if now.pid != before.pid {
                bail!("the daemon of {dir} ended before it had swept: try again");
            }
            if now.sweeps >= wanted {
                break now;
            }
            if Instant::now() >= deadline {
                bail!(
                    "the daemon of {dir} has not made a sweep within {}: look at its log",
                    humantime::format_duration(self.timeout)
                );
            }
            // Nothing tells of a sweep's end but the daemon's own count.
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        self.tell(out, &before, &after)
    }

    /// Says what was evicted between the two.
    fn tell(&self, out: Output<'_>, before: &Stats, after: &Stats) -> Outcome {
        let mut evicted = after.evictions.clone();
        for (reason, count) in &mut evicted {
            let earlier = before.evictions.get(reason).copied().unwrap_or(0);
            *count = count.saturating_sub(earlier);
        }
        evicted.retain(|_, count| *count > 0);
        let bytes = after.evicted_bytes.saturating_sub(before.evicted_bytes);
        if self.json {
            print::json(
                out,
                &json!({ "evicted": evicted, "evicted_bytes": bytes, "pid": after.pid }),
            )?;
            return Ok(ExitCode::SUCCESS);
        }
        let total: u64 = evicted.values().sum();
        let reasons: Vec<_> = evicted
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        let reasons = if reasons.is_empty() {
            String::new()
        } else {
            format!(" ({}), {}", reasons.join(", "), print::size(bytes))
        };
        writeln!(out, "{total} evicted{reasons}")?;
        Ok(ExitCode::SUCCESS)
    }

    /// Shows what would be evicted.
    fn show(&self, out: Output<'_>, target: &Target) -> Outcome {
        let dir = self.dir.display();
        let Some(plan) = target.hidden_lines::<PlanRow>(PLAN_JSONL)? else {
            bail!("the daemon of {dir} does not tell its plan: mount again with this version");
        };
        show(out, &plan, self.json)
    }
}

/// The plan as it is told in JSON.
pub(super) fn victims(plan: &[PlanRow]) -> Vec<serde_json::Value> {
    let victims = plan.iter();
    victims
        .map(|victim| {
            json!({
                "file": victim.path,
                "reason": victim.reason,
                "size_bytes": victim.size_bytes,
                "evidence": victim.evidence,
            })
        })
        .collect()
}

/// Prints what a sweep would remove.
pub(super) fn show(out: Output<'_>, plan: &[PlanRow], json: bool) -> Outcome {
    if json {
        print::json(out, &victims(plan))?;
        return Ok(ExitCode::SUCCESS);
    }
    if plan.is_empty() {
        writeln!(out, "nothing would be removed")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new([
        ("REASON", Side::Left),
        ("SIZE", Side::Right),
        ("FILE", Side::Left),
    ]);
    for victim in plan {
        table.add([
            victim.reason.to_string(),
            print::size(victim.size_bytes),
            match &victim.evidence {
                Some(evidence) => format!("{} ({evidence})", victim.path),
                None => victim.path.clone(),
            },
        ]);
    }
    table.print(out)?;
    Ok(ExitCode::SUCCESS)
}

/// Asks through the mount itself: the kernel tells the daemon who asks, and no process is signalled
/// whose number somebody could have made up.
fn ask(target: &Target) -> Result<(), Errno> {
    const NOW: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_NOW,
    };
    let now = Timestamps {
        last_access: NOW,
        last_modification: NOW,
    };
    let path = target.hidden_path(SWEEP);
    rustix::fs::utimensat(rustix::fs::CWD, &path, &now, AtFlags::SYMLINK_NOFOLLOW)
}

/// The first pause between two looks at the daemon's count, and the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

fn stats(target: &Target) -> anyhow::Result<Stats> {
    let stats = target.hidden_json(STATS_JSON)?;
    stats.with_context(|| {
        format!(
            "the daemon of {} does not count its sweeps: mount again with this version",
            target.dir.display()
        )
    })
}
