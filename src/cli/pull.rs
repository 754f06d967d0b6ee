//! `kidafs pull`: fetches what a directory lacks.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::push::RETRIES;
use super::remote_options::{Reached, RemoteOptions, engines, trust_of_taker, versions};
use super::target::Target;
use super::{Outcome, Output, print};
use crate::format::{Pattern, VersionTag};
use crate::remote::local::Local;
use crate::remote::pull::Puller;

/// Fetch what a cache lacks from a remote, check it, and commit it as an engine does
#[derive(Args)]
pub(super) struct Pull {
    /// The cache: a mount point or a plain directory, which is created if it is missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Only entries of this version, such as py314 or py314_kida0_12_0_ast2; once for each [default: those in use in
    /// DIR, or all if it is empty]
    #[arg(long, value_name = "TAG")]
    version_tag: Vec<VersionTag>,

    /// Entry names [default: the mount's, or KIDAFS_PATTERN]
    #[arg(long, value_name = "P")]
    pattern: Option<Pattern>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    remote: RemoteOptions,
}

impl Pull {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let config = self.remote.resolve()?;
        let trust = trust_of_taker(&config)?;
        let versions = versions(self.version_tag, &config)?;
        let reached = Reached::open(config, RETRIES)?;
        let target = Target::create(&self.dir)?;
        let engines = engines(&target, self.pattern)?;
        let local = Local::open(&self.dir, engines.clone())
            .with_context(|| format!("cannot open {}", self.dir.display()))?;
        let mut catalogue = reached.catalogue(trust, engines);
        let (pulled, result) = Puller::new(versions).pull(&mut catalogue, &local);
        if self.json {
            let mut facts = json!(pulled);
            facts["requests"] = json!(reached.remote.requests());
            facts["epoch"] = json!(catalogue.epoch());
            print::json(out, &facts)?;
        } else {
            let mut notes = String::new();
            if pulled.other_version > 0 {
                notes.push_str(&format!(", {} of another version", pulled.other_version));
            }
            if pulled.rejected.total() > 0 {
                notes.push_str(&format!(", rejected: {}", pulled.rejected));
            }
            writeln!(
                out,
                "{} entries pulled from {} of {} packs ({}), {} here already{notes}",
                pulled.entries,
                pulled.packs_fetched,
                pulled.packs,
                print::size(pulled.bytes),
                pulled.known,
            )?;
        }
        out.flush()?;
        result?;
        Ok(ExitCode::SUCCESS)
    }
}
