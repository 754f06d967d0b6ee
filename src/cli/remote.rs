//! `kidafs remote`: looks after what is kept at a remote.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::bail;
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde_json::json;

use super::print::{self, Side, Table};
use super::push::RETRIES;
use super::remote_options::{
    self, Reached, RemoteOptions, SignOptions, signing_key, trust_of_signer, trust_of_taker,
};
use super::{Outcome, Output, options};
use crate::format::{Engines, Pattern};
use crate::remote::catalogue::{Checked, manifest_name};
use crate::remote::keys::Trust;
use crate::remote::manifest::PackId;
use crate::remote::push::host_name;
use crate::remote::reject::Rejections;
use crate::remote::upkeep::{self, Judged, Rules};

/// Look after what is kept at a remote
#[derive(Subcommand)]
pub(super) enum Remote {
    Ls(Ls),
    Show(Show),
    Verify(Verify),
    Gc(Gc),
    Clear(Clear),
}

impl Remote {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        match self {
            Self::Ls(command) => command.run(out),
            Self::Show(command) => command.run(out),
            Self::Verify(command) => command.run(out),
            Self::Gc(command) => command.run(out),
            Self::Clear(command) => command.run(out),
        }
    }
}

/// What all of them take.
#[derive(Args)]
struct Common {
    /// Entry names [default: KIDAFS_PATTERN]
    #[arg(long, value_name = "P")]
    pattern: Option<Pattern>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    remote: RemoteOptions,
}

/// A remote that is only looked at: without a trusted key whoever signed is shown, and not checked.
fn look(common: Common) -> anyhow::Result<(Reached, Trust, Engines)> {
    let config = common.remote.resolve()?;
    let mut trust = remote_options::trust(&config)?;
    trust.anybody = trust.keys.is_empty();
    Ok((
        Reached::open(config, RETRIES)?,
        trust,
        engines(common.pattern)?,
    ))
}

fn engines(pattern: Option<Pattern>) -> anyhow::Result<Engines> {
    let pattern = match pattern {
        Some(pattern) => pattern,
        None => {
            options::resolve(&options::MountOptions::default())?
                .config
                .pattern
        }
    };
    Ok(Engines::new(pattern))
}

/// List a namespace's packs, the oldest first
#[derive(Args)]
pub(super) struct Ls {
    #[command(flatten)]
    common: Common,
}

fn facts(id: PackId, pack: &Checked) -> serde_json::Value {
    let manifest = &pack.manifest;
    let count = |of: fn(&crate::remote::manifest::PackEntry) -> &str| {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for entry in &manifest.entries {
            *counts.entry(of(entry)).or_default() += 1;
        }
        json!(counts)
    };
    json!({
        "pack": id.to_string(),
        "created_unix_seconds": manifest.created,
        "host": manifest.host,
        "tool": manifest.tool,
        "signed_by": remote_options::signer(&pack.signer),
        "epoch": manifest.epoch,
        "replaces": manifest.replaces.len(),
        "entries": manifest.entries.len(),
        "content_bytes": manifest.body.content,
        "body_bytes": manifest.body.size,
        "engines": count(|entry| &entry.engine),
        "versions": count(|entry| &entry.version),
    })
}

impl Ls {
    fn run(self, out: Output<'_>) -> Outcome {
        let json = self.common.json;
        let (reached, trust, engines) = look(self.common)?;
        let found = upkeep::all(&mut reached.catalogue(trust, engines))?;
        if json {
            let rows: Vec<_> = found
                .iter()
                .map(|(id, result)| match result {
                    Ok(pack) => facts(*id, pack),
                    Err(reject) => json!({
                        "pack": id.to_string(),
                        "rejected": reject.reason,
                        "problem": reject.detail,
                    }),
                })
                .collect();
            print::json(out, &rows)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut table = Table::new([
            ("PACK", Side::Left),
            ("AGE", Side::Right),
            ("ENTRIES", Side::Right),
            ("SIZE", Side::Right),
            ("BODY", Side::Right),
            ("SIGNED BY", Side::Left),
            ("HOST", Side::Left),
            ("VERSIONS", Side::Left),
        ]);
        let now = SystemTime::now();
        for (id, result) in &found {
            let short = id.to_string()[..16].to_owned();
            match result {
                Ok(pack) => {
                    let manifest = &pack.manifest;
                    let versions: std::collections::BTreeSet<_> = manifest
                        .entries
                        .iter()
                        .map(|e| e.version.as_str())
                        .collect();
                    table.add([
                        short,
                        print::age(manifest.created(), now),
                        manifest.entries.len().to_string(),
                        print::size(manifest.body.content),
                        print::size(manifest.body.size),
                        remote_options::signer(&pack.signer),
                        manifest.host.clone(),
                        versions.into_iter().collect::<Vec<_>>().join(" "),
                    ]);
                }
                Err(reject) => table.add([
                    short,
                    String::new(),
                    String::new(),
                    String::new(),
                    String::new(),
                    format!("rejected: {}", reject.reason),
                    String::new(),
                    String::new(),
                ]),
            }
        }
        table.print(out)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Show what is in a pack
#[derive(Args)]
pub(super) struct Show {
    /// The pack's name, or the beginning of it
    #[arg(value_name = "PACK")]
    pack: String,

    #[command(flatten)]
    common: Common,
}

impl Show {
    fn run(self, out: Output<'_>) -> Outcome {
        let json = self.common.json;
        let (reached, trust, engines) = look(self.common)?;
        let mut catalogue = reached.catalogue(trust, engines);
        let round = catalogue.look()?;
        let fits = |id: &&PackId| id.to_string().starts_with(&self.pack);
        let mut found = round.new.iter().filter(fits);
        let Some(id) = found.next() else {
            bail!(
                "there is no pack {}: `kidafs remote ls` lists those that are there",
                self.pack
            );
        };
        if found.next().is_some() {
            bail!(
                "several packs begin with {}: write more of the name",
                self.pack
            );
        }
        let Some(pack) = catalogue.read(*id)? else {
            bail!("{} has gone: list the packs again", manifest_name(*id));
        };
        let pack = pack?;
        if json {
            let mut all = facts(*id, &pack);
            all["files"] = json!(pack.manifest.entries);
            print::json(out, &all)?;
            return Ok(ExitCode::SUCCESS);
        }
        writeln!(
            out,
            "{id}: {} entries of {}, made by {} on {}, signed by {}",
            pack.manifest.entries.len(),
            print::size(pack.manifest.body.content),
            print::clean(&pack.manifest.tool),
            print::clean(&pack.manifest.host),
            remote_options::signer(&pack.signer),
        )?;
        let mut table = Table::new([
            ("ENGINE", Side::Left),
            ("VERSION", Side::Left),
            ("SIZE", Side::Right),
            ("FILE", Side::Left),
        ]);
        for entry in pack.manifest.entries {
            table.add([
                entry.engine,
                entry.version,
                print::size(entry.size),
                entry.path,
            ]);
        }
        table.print(out)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Fetch and check every pack as a pull would; exit status 1 if one would be rejected
#[derive(Args)]
pub(super) struct Verify {
    #[command(flatten)]
    common: Common,
}

impl Verify {
    fn run(self, out: Output<'_>) -> Outcome {
        let json = self.common.json;
        let config = self.common.remote.resolve()?;
        let trust = trust_of_taker(&config)?;
        let engines = engines(self.common.pattern)?;
        let reached = Reached::open(config, RETRIES)?;
        let found: Vec<Judged> = upkeep::all(&mut reached.catalogue(trust, engines.clone()))?;
        let progress = ProgressBar::new(found.len() as u64);
        let mut rejected = Rejections::default();
        let mut bad = Vec::new();
        let mut entries = 0;
        let packs = found.len();
        for (id, result) in found {
            let rejects = match result {
                Ok(pack) => {
                    entries += pack.manifest.entries.len();
                    upkeep::check(&reached.remote, &engines, &pack)?
                }
                Err(reject) => vec![reject],
            };
            for reject in rejects {
                rejected.count(reject.reason);
                if json {
                    bad.push(json!({
                        "pack": id.to_string(),
                        "reason": reject.reason,
                        "problem": reject.detail,
                    }));
                } else {
                    let text = format!("{id}: {reject}");
                    progress.suspend(|| writeln!(out, "{}", print::clean(&text)))?;
                }
            }
            progress.inc(1);
        }
        progress.finish_and_clear();
        if json {
            print::json(
                out,
                &json!({ "packs": packs, "entries": entries, "rejected": rejected, "bad": bad }),
            )?;
        } else {
            let total = rejected.total();
            writeln!(
                out,
                "{packs} packs with {entries} entries checked, {total} bad"
            )?;
        }
        Ok(if rejected.total() == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// Remove packs that nobody needs: replaced by a snapshot, held by others as a whole, of an epoch that was cleared
#[derive(Args)]
pub(super) struct Gc {
    /// Also packs that were made longer ago
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_age: Option<Duration>,

    /// Also packs that are rejected here; make sure that all keys are given
    #[arg(long)]
    rejected: bool,

    /// Show what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    common: Common,
}

impl Gc {
    fn run(self, out: Output<'_>) -> Outcome {
        let json = self.common.json;
        let config = self.common.remote.resolve()?;
        // A stranger's pack must not say that another one can go.
        let trust = trust_of_taker(&config)?;
        let reached = Reached::open(config, RETRIES)?;
        let mut catalogue = reached.catalogue(trust, engines(self.common.pattern)?);
        let rules = Rules {
            max_age: self.max_age,
            rejected: self.rejected,
        };
        let spent = upkeep::spent(&mut catalogue, rules, SystemTime::now())?;
        let packs: Vec<_> = spent.keys().copied().collect();
        if !self.dry_run {
            upkeep::remove(&reached.remote, &packs)?;
        }
        if json {
            let rows: Vec<_> = spent
                .iter()
                .map(|(id, why)| json!({ "pack": id.to_string(), "reason": why }))
                .collect();
            print::json(out, &json!({ "removed": !self.dry_run, "packs": rows }))?;
            return Ok(ExitCode::SUCCESS);
        }
        for (id, why) in &spent {
            writeln!(out, "{id}: {why}")?;
        }
        let done = if self.dry_run {
            "would be removed"
        } else {
            "removed"
        };
        writeln!(out, "{} packs {done}", packs.len())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Remove all packs, and have no pack taken any more that was made before, wherever it turns up
#[derive(Args)]
pub(super) struct Clear {
    #[command(flatten)]
    sign: SignOptions,

    #[command(flatten)]
    common: Common,
}

impl Clear {
    fn run(self, out: Output<'_>) -> Outcome {
        let json = self.common.json;
        let config = self.sign.onto(self.common.remote.resolve()?);
        let key = signing_key(&config)?;
        let trust = trust_of_signer(&config, key.as_ref())?;
        let reached = Reached::open(config, RETRIES)?;
        let mut catalogue = reached.catalogue(trust, engines(self.common.pattern)?);
        let now = SystemTime::now();
        let (removed, epoch) = upkeep::clear(&mut catalogue, key.as_ref(), &host_name(), now)?;
        if json {
            print::json(out, &json!({ "removed": removed, "epoch": epoch }))?;
        } else {
            writeln!(out, "{removed} packs removed, epoch {epoch} begun")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
