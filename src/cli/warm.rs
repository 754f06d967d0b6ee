//! `kidafs warm`: reads everything once.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::target::Target;
use super::{Outcome, Output, listing, print};

/// Load every entry into memory and into the kernel's caches
#[derive(Args)]
pub(super) struct Warm {
    /// The cache: a mount point or a plain directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Warm {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let target = Target::open(&self.dir)?;
        let (mut files, mut bytes, mut failed) = (0u64, 0u64, 0u64);
        for found in listing::files(&target.dir)? {
            let path = target.dir.join(&found.path);
            match File::open(&path).and_then(|mut file| io::copy(&mut file, &mut io::sink())) {
                Ok(count) => {
                    files += 1;
                    bytes += count;
                }
                // It was evicted or replaced meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    failed += 1;
                    log::warn!("cannot read {}: {error}", path.display());
                }
            }
        }
        if self.json {
            print::json(
                out,
                &json!({ "files": files, "bytes": bytes, "failed": failed }),
            )?;
        } else {
            writeln!(out, "{files} files, {}", print::size(bytes))?;
        }
        if failed > 0 {
            out.flush()?;
            anyhow::bail!(
                "{failed} files could not be read: run `kidafs verify {}`",
                target.dir.display()
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}
