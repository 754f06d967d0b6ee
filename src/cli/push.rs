//! `kidafs push`: puts into a remote what it does not have yet.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::remote_options::{
    Reached, RemoteOptions, SignOptions, engines, signing_key, trust_of_signer, versions,
};
use super::target::Target;
use super::{Outcome, Output, print};
use crate::format::{Pattern, VersionTag};
use crate::remote::local::Local;
use crate::remote::push::{Pusher, host_name};

/// Pack what a remote does not have yet, sign it, and put it there
#[derive(Args)]
pub(super) struct Push {
    /// The cache: a mount point or a plain directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Pack all of it, after which `kidafs remote gc` can remove the packs that are there now
    #[arg(long)]
    snapshot: bool,

    /// Only entries of this version, such as py314; once for each
    #[arg(long, value_name = "TAG")]
    version_tag: Vec<VersionTag>,

    /// Entry names [default: the mount's, or KIDAFS_PATTERN]
    #[arg(long, value_name = "P")]
    pattern: Option<Pattern>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    sign: SignOptions,

    #[command(flatten)]
    remote: RemoteOptions,
}

/// How often a request that may pass is tried again.
pub(super) const RETRIES: usize = 3;

impl Push {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let config = self.sign.onto(self.remote.resolve()?);
        let key = signing_key(&config)?;
        let trust = trust_of_signer(&config, key.as_ref())?;
        let versions = versions(self.version_tag, &config)?;
        let reached = Reached::open(config, RETRIES)?;
        let target = Target::open(&self.dir)?;
        let engines = engines(&target, self.pattern)?;
        let local = Local::open(&self.dir, engines.clone())?;
        let mut catalogue = reached.catalogue(trust, engines);
        let pusher = Pusher {
            key,
            versions,
            host: host_name(),
        };
        let (pushed, result) = pusher.push(&mut catalogue, &local, self.snapshot);
        if self.json {
            let mut facts = json!(pushed);
            facts["requests"] = json!(reached.remote.requests());
            facts["epoch"] = json!(catalogue.epoch());
            print::json(out, &facts)?;
        } else {
            let skipped = match pushed.skipped {
                0 => String::new(),
                skipped => format!(", {skipped} files skipped"),
            };
            writeln!(
                out,
                "{} entries pushed in {} packs ({} as {}), {} there already{skipped}",
                pushed.entries,
                pushed.packs,
                print::size(pushed.bytes),
                print::size(pushed.body_bytes),
                pushed.known,
            )?;
        }
        out.flush()?;
        result?;
        Ok(ExitCode::SUCCESS)
    }
}
