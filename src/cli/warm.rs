//! `kidafs warm`: reads everything once.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::target::Target;
use super::{Outcome, Output, listing, print};
use crate::daemon::mountpoint;

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
        let Warmed {
            files,
            bytes,
            failed,
        } = warm(&target.dir)?;
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

/// What came of reading everything.
#[derive(Default)]
struct Warmed {
    files: u64,
    bytes: u64,
    failed: u64,
}

/// As the command, for `kidafs mount --warm`: says nothing unless something cannot be read.
pub(super) fn warm_mount(dir: &Path) -> anyhow::Result<()> {
    warm(dir).map(|_| ())
}

fn warm(dir: &Path) -> anyhow::Result<Warmed> {
    let mut warmed = Warmed::default();
    let mount = mountpoint::id_of(dir);
    for found in listing::files(dir)? {
        // Unmounted meanwhile: there is nothing left to load.
        if mountpoint::id_of(dir) != mount {
            break;
        }
        let path = dir.join(&found.path);
        match read(&path) {
            Ok(count) => {
                warmed.files += 1;
                warmed.bytes += count;
            }
            // It was evicted or replaced meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                warmed.failed += 1;
                log::warn!("cannot read {}: {error}", path.display());
            }
        }
    }
    Ok(warmed)
}

fn read(path: &Path) -> io::Result<u64> {
    let count = io::copy(&mut File::open(path)?, &mut io::sink())?;
    // Reading has made the kernel forget the access time, and with it that it knows the attributes: asking
    // for them now spares the engine's first hit that message.
    std::fs::symlink_metadata(path)?;
    Ok(count)
}
