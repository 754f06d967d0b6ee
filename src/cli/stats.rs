//! `kidafs stats`: what the engine counts, and what the daemon of a mount tells.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::target::Target;
use super::{Outcome, Output, print};
use crate::format::Pattern;
use crate::kida::{BytecodeCache, Stats as Counted};
use crate::layout::{METRICS, STATS_JSON};
use crate::stats::{Histogram, Stats as Daemon, Tier};

/// Show what is in a cache and, on a mount, what happens there
#[derive(Args)]
pub(super) struct Stats {
    /// The cache: a mount point or a plain directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Print the metrics of a mount in Prometheus's text format
    #[arg(long, conflicts_with_all = ["json", "watch"])]
    prometheus: bool,

    /// Show it again and again, with the rates since the last time
    #[arg(
        long,
        value_name = "INTERVAL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2s",
        value_parser = interval
    )]
    watch: Option<Duration>,

    /// Print JSON; with --watch, a line each time
    #[arg(long)]
    json: bool,
}

/// The shortest interval of `--watch`.
const SHORTEST: Duration = Duration::from_millis(100);

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text)
        .map_err(|_| "write a number and a unit, such as 2s".to_owned())?;
    if interval < SHORTEST {
        return Err(format!("write at least {}ms", SHORTEST.as_millis()));
    }
    Ok(interval)
}

/// All that is known of a cache. The first two are as the engine's `stats()` gives them.
#[derive(Serialize)]
struct Facts {
    /// Of a plain directory; of a mount the daemon's own are shown.
    #[serde(flatten)]
    counted: Option<Counted>,
    mounted: bool,
    #[serde(flatten)]
    daemon: Option<Daemon>,
    #[cfg(feature = "remote")]
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<crate::remote::state::State>,
}

impl Stats {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        if self.prometheus {
            return self.print_metrics(out);
        }
        let Some(interval) = self.watch else {
            let facts = self.facts()?;
            if self.json {
                print::json(out, &facts)?;
            } else {
                self.print(out, &facts, None)?;
            }
            return Ok(ExitCode::SUCCESS);
        };
        self.watch(out, interval)
    }

    fn print_metrics(&self, out: Output<'_>) -> Outcome {
        let target = Target::open_mount(&self.dir)?;
        let Some(metrics) = target.hidden(METRICS)? else {
            bail!(
                "the daemon of {} has no metrics: mount again with this version",
                self.dir.display()
            );
        };
        // The last line of the text says that it ends there.
        let own = metrics.trim_end().strip_suffix("# EOF");
        out.write_all(own.unwrap_or(&metrics).as_bytes())?;
        #[cfg(feature = "remote")]
        if let Some(state) = crate::remote::state::read(&self.dir) {
            let now = crate::remote::pack::seconds(std::time::SystemTime::now());
            out.write_all(state.metrics(now).as_bytes())?;
        }
        if own.is_some() {
            writeln!(out, "# EOF")?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Draws until it is interrupted or nobody reads any longer.
    fn watch(&self, out: Output<'_>, interval: Duration) -> Outcome {
        let mut last: Option<(Daemon, Instant)> = None;
        loop {
            let facts = self.facts()?;
            let now = Instant::now();
            if self.json {
                print::json_line(out, &facts)?;
            } else {
                if io::stdout().is_terminal() {
                    // Home, and clear from there: the screen does not flicker as it would if it were
                    // cleared first.
                    write!(out, "\x1b[H\x1b[J")?;
                } else if last.is_some() {
                    writeln!(out)?;
                }
                let before = last
                    .as_ref()
                    .map(|(stats, at)| (stats, now.saturating_duration_since(*at)));
                self.print(out, &facts, before)?;
            }
            out.flush()?;
            last = facts.daemon.map(|stats| (stats, now));
            std::thread::sleep(interval);
        }
    }

    fn facts(&self) -> anyhow::Result<Facts> {
        let target = Target::open(&self.dir)?;
        let daemon: Option<Daemon> = target.hidden_json(STATS_JSON)?;
        Ok(Facts {
            counted: match daemon {
                Some(_) => None,
                None => Some(count(&target)?),
            },
            mounted: target.mount.is_some(),
            daemon,
            #[cfg(feature = "remote")]
            remote: crate::remote::state::read(&self.dir),
        })
    }

    fn print(
        &self,
        out: Output<'_>,
        facts: &Facts,
        before: Option<(&Daemon, Duration)>,
    ) -> io::Result<()> {
        let (files, total) = facts.files_and_bytes();
        line(out, "file_count", files)?;
        line(
            out,
            "total_bytes",
            format!("{total} ({})", print::size(total)),
        )?;
        let Some(stats) = &facts.daemon else {
            let kind = if facts.mounted {
                "mounted; its daemon tells nothing"
            } else {
                "plain directory, not mounted"
            };
            line(out, "daemon", kind)?;
            return remote(out, facts);
        };
        daemon(out, stats, before)?;
        remote(out, facts)
    }
}

impl Facts {
    /// What the engine's `stats()` gives.
    fn files_and_bytes(&self) -> (u64, u64) {
        match (&self.daemon, &self.counted) {
            (Some(daemon), _) => (daemon.file_count, daemon.total_bytes),
            (None, Some(counted)) => (counted.file_count, counted.total_bytes),
            (None, None) => (0, 0),
        }
    }
}

/// What the engine's `stats()` gives for a plain directory.
fn count(target: &Target) -> anyhow::Result<Counted> {
    BytecodeCache::existing(&target.dir, Pattern::default())
        .stats()
        .with_context(|| format!("cannot list {}", target.dir.display()))
}

#[cfg(not(feature = "remote"))]
fn remote(_out: Output<'_>, _facts: &Facts) -> io::Result<()> {
    Ok(())
}

/// What the process that carries the cache tells, if there is one.
#[cfg(feature = "remote")]
fn remote(out: Output<'_>, facts: &Facts) -> io::Result<()> {
    let Some(state) = &facts.remote else {
        return Ok(());
    };
    let now = crate::remote::pack::seconds(std::time::SystemTime::now());
    let ago = |at: u64| print::span(Duration::from_secs(now.saturating_sub(at)));
    let good = state
        .last_good
        .map_or("never".to_owned(), |at| format!("{} ago", ago(at)));
    line(
        out,
        "remote",
        format!("{} ({})", state.remote, state.namespace),
    )?;
    line(
        out,
        "remote pulled",
        format!("{} entries", state.pulled.entries),
    )?;
    let lag = state.lag(now);
    line(
        out,
        "remote pushed",
        format!("{} entries, {lag} s behind", state.pushed.entries),
    )?;
    if state.rejected.total() > 0 {
        line(out, "remote rejected", &state.rejected)?;
    }
    let failures = format!(
        "{} errors, {} time-outs, last good {good}",
        state.errors, state.timeouts
    );
    line(
        out,
        "remote breaker",
        format!("{}, {failures}", state.breaker),
    )?;
    if let Some(error) = &state.last_error {
        line(out, "remote error", error)?;
    }
    Ok(())
}

fn line(out: Output<'_>, name: &str, value: impl std::fmt::Display) -> io::Result<()> {
    let value = value.to_string();
    let line = format!("{name:<18} {}", print::clean(&value));
    writeln!(out, "{}", line.trim_end())
}

/// What the two numbers above it are not.
const UNSEEN: &str = "(the kernel's cache answers most by itself: an entry in use is seen once in each --entry-timeout)";

fn daemon(out: Output<'_>, stats: &Daemon, before: Option<(&Daemon, Duration)>) -> io::Result<()> {
    let uptime = Duration::try_from_secs_f64(stats.uptime_seconds).unwrap_or_default();
    let access = if stats.read_only { ", read-only" } else { "" };
    line(
        out,
        "daemon",
        format!(
            "kidafs {}, process {}, up {}{access}",
            stats.version,
            stats.pid,
            print::span(uptime)
        ),
    )?;
    line(out, "mounted on", &stats.mount_point)?;
    line(out, "backing", &stats.backing)?;
    line(out, "memory", tier(&stats.memory))?;
    line(out, "staging", tier(&stats.staging))?;
    line(out, "disk", tier(&stats.disk))?;
    for (engine, verdicts) in &stats.verdicts {
        let verdicts = verdicts.iter();
        let verdicts: Vec<_> = verdicts
            .map(|(verdict, count)| format!("{count} {verdict}"))
            .collect();
        line(out, &format!("  {engine}"), verdicts.join(", "))?;
    }
    let foreign = format!(
        "{}, {} files that are no entries",
        print::size(stats.foreign.bytes),
        stats.foreign.files
    );
    line(out, "foreign", foreign)?;
    let unreachable = if stats.free_space_out_of_reach {
        ", less than --keep-free, which evicting cannot change"
    } else {
        ""
    };
    line(
        out,
        "free on backing",
        format!(
            "{}{unreachable}",
            print::size(stats.backing_available_bytes)
        ),
    )?;
    let rate = |count: fn(&Daemon) -> u64| {
        let now = count(stats);
        match before {
            Some((last, elapsed)) if !elapsed.is_zero() => {
                let more = now.saturating_sub(count(last));
                format!("{now} ({:.1}/s)", more as f64 / elapsed.as_secs_f64())
            }
            _ => now.to_string(),
        }
    };
    line(out, "hits seen", rate(|stats| stats.lookups.hits))?;
    line(out, "misses seen", rate(|stats| stats.lookups.misses))?;
    line(out, "", UNSEEN)?;
    line(out, "commits", rate(|stats| stats.commits))?;
    line(out, "commit latency", latency(&stats.commit_latency))?;
    let held = format!(
        "{:.1} s, {:.1} % of its life",
        stats.latency_held_seconds,
        stats.latency_held_share() * 100.0
    );
    line(out, "latency held", held)?;
    line(out, "polled", format!("{:.1} s", stats.poll_seconds))?;
    line(out, "requests", rate(|stats| stats.requests.values().sum()))?;
    let now = if stats.sweeping {
        ", one is made now"
    } else {
        ""
    };
    line(
        out,
        "sweeps",
        format!("{}{now}", rate(|stats| stats.sweeps)),
    )?;
    line(
        out,
        "evictions",
        rate(|stats| stats.evictions.values().sum()),
    )?;
    for (reason, count) in &stats.evictions {
        line(out, &format!("  {reason}"), count)?;
    }
    line(out, "evicted bytes", print::size(stats.evicted_bytes))?;
    line(out, "quarantined", stats.quarantined)?;
    if stats.unserved > 0 {
        line(out, "not served", stats.unserved)?;
    }
    line(out, "errors", rate(|stats| stats.errors.values().sum()))?;
    for (errno, count) in &stats.errors {
        line(out, &format!("  {errno}"), count)?;
    }
    let digests = if stats.digests { "on" } else { "off" };
    line(out, "digests", digests)?;
    line(out, "kernel", stats.kernel.join(", "))
}

fn tier(tier: &Tier) -> String {
    let files = match tier.budget_files {
        Some(budget) => format!("{} of {budget} files", tier.files),
        None => format!("{} files", tier.files),
    };
    format!(
        "{} of {}, {files}",
        print::size(tier.bytes),
        print::size(tier.budget_bytes)
    )
}

fn latency(histogram: &Histogram) -> String {
    if histogram.count() == 0 {
        return "-".to_owned();
    }
    let bound = |share| {
        let quantile = histogram.quantile(share);
        quantile.map_or_else(|| "more".to_owned(), |time| format!("{time:?}"))
    };
    format!("half within {}, 99 % within {}", bound(0.5), bound(0.99))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evict::Reason;

    fn shown(stats: &Daemon, before: Option<(&Daemon, Duration)>) -> String {
        let mut out = Vec::new();
        daemon(&mut out, stats, before).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_daemons_facts_are_shown_with_rates_when_they_are_drawn_again() {
        let mut stats = Daemon {
            pid: 7,
            uptime_seconds: 7200.0,
            commits: 10,
            ..Daemon::default()
        };
        stats.evictions.insert(Reason::Budget, 3);
        let text = shown(&stats, None);
        assert!(text.contains("process 7, up 2h\n"), "{text}");
        assert!(text.contains("\ncommits            10\n"), "{text}");
        assert!(text.contains("\n  budget           3\n"), "{text}");
        let later = Daemon {
            commits: 15,
            ..stats.clone()
        };
        let text = shown(&later, Some((&stats, Duration::from_secs(2))));
        assert!(text.contains("\ncommits            15 (2.5/s)\n"), "{text}");
    }

    #[test]
    fn a_daemon_that_started_anew_has_no_negative_rates() {
        let old = Daemon {
            commits: 10,
            ..Daemon::default()
        };
        let text = shown(&Daemon::default(), Some((&old, Duration::from_secs(1))));
        assert!(text.contains("\ncommits            0 (0.0/s)\n"), "{text}");
    }

    #[test]
    fn an_uptime_that_is_no_time_is_shown_as_none() {
        let stats = Daemon {
            uptime_seconds: -1.0,
            ..Daemon::default()
        };
        assert!(shown(&stats, None).contains("up 0s"));
    }
}
