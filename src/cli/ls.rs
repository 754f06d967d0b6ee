//! `kidafs ls`: a row an entry.

use std::cmp::Reverse;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::listing::{self, Row};
use super::print::{self, Side, Table};
use super::target::Target;
use super::{Outcome, Output};
use crate::format::Pattern;
use crate::stats::{Place, unix_seconds};

/// List the entries
#[derive(Args)]
pub(super) struct Ls {
    /// The cache: a mount point or a plain directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// The order of the rows
    #[arg(long, value_enum, default_value_t = Sort::Template)]
    sort: Sort,

    /// Only entries of which a newer source is there
    #[arg(long)]
    superseded: bool,

    /// Only entries that their source has outdated, or that have lost it
    #[arg(long)]
    stale: bool,

    /// Entry names [default: the mount's, or KIDAFS_PATTERN]
    #[arg(long, value_name = "P")]
    pattern: Option<Pattern>,

    /// Print JSON: an array of objects, with sizes in bytes and times in seconds since 1970
    #[arg(long)]
    json: bool,
}

/// What rows are ordered by.
#[derive(Clone, Copy, ValueEnum)]
enum Sort {
    /// By name, then newest first
    Template,
    /// By version tag
    Version,
    /// Largest first
    Size,
    /// Newest first
    Age,
    /// Last used first
    Used,
}

/// A row as JSON.
#[derive(Serialize)]
struct Entry<'a> {
    file: String,
    template: Option<&'a str>,
    version: Option<&'a str>,
    source_hash: Option<&'a str>,
    context_hash: Option<&'a str>,
    format: Option<&'a str>,
    size_bytes: u64,
    modified_unix_seconds: f64,
    used_unix_seconds: f64,
    tier: Option<Place>,
    engine: Option<&'a str>,
    source: Option<&'a str>,
    verdict: Option<&'a str>,
    superseded: bool,
}

impl Ls {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let target = Target::open(&self.dir)?;
        let pattern = target.pattern(self.pattern)?;
        let mut rows = listing::rows(&target, &pattern)?;
        if self.superseded {
            rows.retain(|row| row.superseded);
        }
        if self.stale {
            let stale = |verdict: &str| matches!(verdict, "superseded" | "orphaned");
            rows.retain(|row| row.verdict.as_deref().is_some_and(stale));
        }
        sort(&mut rows, self.sort);
        if self.json {
            let entries: Vec<_> = rows.iter().map(entry).collect();
            print::json(out, &entries)?;
        } else {
            table(&rows, SystemTime::now()).print(out)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The template's name, or the file's where the name says nothing.
fn label(row: &Row) -> String {
    match (&row.name, row.path.parent()) {
        (Some(name), Some(folder)) => folder.join(&name.template).to_string_lossy().into_owned(),
        _ => row.path.to_string_lossy().into_owned(),
    }
}

fn sort(rows: &mut [Row], by: Sort) {
    // The rows come sorted by path, and every sort here is stable.
    match by {
        Sort::Template => rows.sort_by_cached_key(|row| (label(row), Reverse(row.modified))),
        Sort::Version => {
            rows.sort_by_cached_key(|row| row.name.as_ref().map(|name| name.version.clone()));
        }
        Sort::Size => rows.sort_by_key(|row| Reverse(row.size)),
        Sort::Age => rows.sort_by_key(|row| Reverse(row.modified)),
        Sort::Used => rows.sort_by_key(|row| Reverse(row.used)),
    }
}

fn table(rows: &[Row], now: SystemTime) -> Table<9> {
    let mut table = Table::new([
        ("TEMPLATE", Side::Left),
        ("VERSION", Side::Left),
        ("SOURCE", Side::Left),
        ("CONTEXT", Side::Left),
        ("FORMAT", Side::Left),
        ("SIZE", Side::Right),
        ("AGE", Side::Right),
        ("USED", Side::Right),
        ("TIER", Side::Left),
    ]);
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    for row in rows {
        let name = row.name.as_ref();
        table.add([
            label(row),
            or_dash(name.map(|name| name.version.as_str())),
            or_dash(name.map(|name| name.source_hash.as_str())),
            or_dash(name.and_then(|name| name.context_hash.as_deref())),
            or_dash(row.format.as_deref()),
            print::size(row.size),
            print::age(row.modified, now),
            print::age(row.used, now),
            or_dash(row.tier.map(place)),
        ]);
    }
    table
}

fn place(tier: Place) -> &'static str {
    match tier {
        Place::Memory => "memory",
        Place::Disk => "disk",
        Place::Staging => "staging",
    }
}

fn entry(row: &Row) -> Entry<'_> {
    let name = row.name.as_ref();
    Entry {
        file: row.path.to_string_lossy().into_owned(),
        template: name.map(|name| name.template.as_str()),
        version: name.map(|name| name.version.as_str()),
        source_hash: name.map(|name| name.source_hash.as_str()),
        context_hash: name.and_then(|name| name.context_hash.as_deref()),
        format: row.format.as_deref(),
        size_bytes: row.size,
        modified_unix_seconds: unix_seconds(row.modified),
        used_unix_seconds: unix_seconds(row.used),
        tier: row.tier,
        engine: row.engine.as_deref(),
        source: row.source.as_deref(),
        verdict: row.verdict.as_deref(),
        superseded: row.superseded,
    }
}
