//! `kidafs sweep`: makes the daemon's evictor run now, or shows what it would do.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use clap::Args;
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::json;

use super::listing::Name;
use super::options;
use super::print::{self, Side, Table};
use super::target::Target;
use super::{Outcome, Output};
use crate::config::{Config, Setting};
use crate::evict::{self, EntryInfo, Free, Kind, Limits};
use crate::format::Pattern;
use crate::layout::{ENTRIES_JSONL, STATS_JSON};
use crate::stats::{EntryRow, Place, Stats, time_of};

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
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A victim and what it was.
struct Planned {
    path: String,
    reason: evict::Reason,
    size: u64,
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
        let Some(pid) = target.mount.as_ref().and_then(|mount| mount.pid) else {
            bail!(others);
        };
        let before = stats(target)?;
        if before.read_only {
            bail!("{dir} is served read-only, so nothing is evicted: mount it without --read-only");
        }
        match rustix::process::kill_process(pid, Signal::USR1) {
            Err(Errno::PERM) => bail!(others),
            signalled => signalled
                .with_context(|| format!("cannot signal the daemon of {dir} (process {pid})"))?,
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
                    "the daemon of {dir} (process {pid}) has not made a sweep within {}: look at its log",
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
        let (Some(settings), Some(rows), Some(stats)) = (
            target.settings()?,
            target.hidden_lines::<EntryRow>(ENTRIES_JSONL)?,
            target.hidden_json::<Stats>(STATS_JSON)?,
        ) else {
            bail!("the daemon of {dir} does not list its entries: mount again with this version");
        };
        let plan = plan(&settings, rows, &stats)?;
        if self.json {
            let victims: Vec<_> = plan
                .iter()
                .map(|victim| {
                    json!({ "file": victim.path, "reason": victim.reason, "size_bytes": victim.size })
                })
                .collect();
            print::json(out, &victims)?;
        } else {
            let mut table = Table::new([
                ("REASON", Side::Left),
                ("SIZE", Side::Right),
                ("FILE", Side::Left),
            ]);
            for victim in plan {
                table.add([
                    victim.reason.to_string(),
                    print::size(victim.size),
                    victim.path,
                ]);
            }
            table.print(out)?;
        }
        Ok(ExitCode::SUCCESS)
    }
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

/// What the daemon's next sweep would remove: the same rules on what it tells about its entries.
fn plan(
    settings: &std::collections::BTreeMap<String, Setting>,
    rows: Vec<EntryRow>,
    stats: &Stats,
) -> anyhow::Result<Vec<Planned>> {
    let config: Config = options::config_of(settings)?;
    let free = (stats.backing_total_bytes > 0).then_some(Free {
        available: stats.backing_available_bytes,
        total: stats.backing_total_bytes,
        unit: stats.backing_block_bytes,
    });
    let mut kinds = Kinds::default();
    let entries: Vec<_> = (0..)
        .zip(&rows)
        .map(|(id, row)| EntryInfo {
            id,
            kind: kinds.of(row, &config.pattern),
            committed_at: time_of(row.committed_unix_seconds),
            last_used: time_of(row.used_unix_seconds),
            size: row.size_bytes,
            in_use: row.in_use,
        })
        .collect();
    let mut paths: HashMap<u64, String> = (0..).zip(rows.into_iter().map(|row| row.path)).collect();
    let victims = evict::plan(&entries, SystemTime::now(), &Limits::from(&config), free);
    Ok(victims
        .into_iter()
        .filter_map(|victim| {
            Some(Planned {
                path: paths.remove(&victim.id)?,
                reason: victim.reason,
                size: victim.size,
            })
        })
        .collect())
}

/// Numbers that stand for names.
#[derive(Default)]
struct Kinds {
    templates: Numbers<(PathBuf, String, String)>,
    sources: Numbers<String>,
    versions: Numbers<String>,
}

impl Kinds {
    fn of(&mut self, row: &EntryRow, pattern: &Pattern) -> Kind {
        let path = Path::new(&row.path);
        if row.tier == Place::Staging {
            return Kind::Staged;
        }
        let Some(name) = Name::parse(pattern, path) else {
            return Kind::Other;
        };
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let abi = self.versions.of(name.version.clone());
        Kind::Entry {
            group: self.templates.of((folder, name.version, name.template)),
            source: self.sources.of(name.source_hash),
            abi: u32::try_from(abi).unwrap_or(u32::MAX),
        }
    }
}

/// A number for each thing, the same for the same thing.
struct Numbers<T>(HashMap<T, u64>);

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Eq + Hash> Numbers<T> {
    fn of(&mut self, thing: T) -> u64 {
        let next = self.0.len() as u64;
        *self.0.entry(thing).or_insert(next)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::evict::Reason;
    use crate::stats::unix_seconds;

    fn row(path: &str, hours: u64, tier: Place) -> EntryRow {
        let at = unix_seconds(SystemTime::now() - Duration::from_secs(hours * 3600 + 60));
        EntryRow {
            path: path.to_owned(),
            size_bytes: 100,
            committed_unix_seconds: at,
            used_unix_seconds: at,
            tier,
            ..EntryRow::default()
        }
    }

    #[test]
    fn the_dry_run_applies_the_daemons_own_options_to_its_list() {
        let rows = vec![
            row("__kida_py314_a.html_0000000000000001.pyc", 5, Place::Disk),
            row("__kida_py314_a.html_0000000000000002.pyc", 3, Place::Memory),
            row(
                "sub/__kida_py314_a.html_0000000000000003.pyc",
                1,
                Place::Disk,
            ),
            row(
                "__kida_py314_a.html_0000000000000004.pyc.abcdefgh.tmp",
                4,
                Place::Staging,
            ),
            row("mako/a.html.py", 50, Place::Disk),
        ];
        let settings = BTreeMap::from([
            ("max-age".to_owned(), setting("2d")),
            ("superseded-grace".to_owned(), setting("2h")),
            ("backing".to_owned(), setting("")),
            ("an-option-of-a-later-version".to_owned(), setting("x")),
        ]);
        let plan = plan(&settings, rows, &Stats::default()).unwrap();
        let plan: Vec<_> = plan.iter().map(|v| (v.reason, v.path.as_str())).collect();
        assert_eq!(
            plan,
            [
                (
                    Reason::StaleTemp,
                    "__kida_py314_a.html_0000000000000004.pyc.abcdefgh.tmp"
                ),
                (Reason::Expired, "mako/a.html.py"),
                (
                    Reason::Superseded,
                    "__kida_py314_a.html_0000000000000001.pyc"
                ),
            ]
        );
    }

    fn setting(value: &str) -> Setting {
        Setting {
            value: value.to_owned(),
            origin: crate::config::Origin::Default,
        }
    }
}
