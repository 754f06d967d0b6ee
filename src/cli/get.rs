//! `kidafs get`: the engine's `BytecodeCache.get`, into files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::entry::EntryArgs;
use super::{Outcome, Output, print};

/// Take the sections of an entry out into files; exit status 1 when it is not there
#[derive(Args)]
pub(super) struct Get {
    #[command(flatten)]
    entry: EntryArgs,

    /// Where the marshalled code goes; - for standard output
    #[arg(long, value_name = "OUT")]
    code: PathBuf,

    /// Where the pickled syntax tree goes, if there is one
    #[arg(long, value_name = "OUT")]
    ast: Option<PathBuf>,

    /// Where the pickled precomputed values go, if there are any
    #[arg(long, value_name = "OUT")]
    precomputed: Option<PathBuf>,

    /// Where the compiler's warnings go, a JSON list, if the engine keeps them
    #[arg(long, value_name = "OUT")]
    warnings: Option<PathBuf>,

    /// Print the sizes of the sections as JSON
    #[arg(long)]
    json: bool,
}

impl Get {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let source_hash = self.entry.source_hash()?;
        let cache = self.entry.cache()?;
        let context_hash = self.entry.context_hash.as_deref();
        let Some(cached) = cache.get(&self.entry.name, &source_hash, context_hash)? else {
            bail!(
                "{:?} is not in {} with that source{}: `kidafs ls {}` lists what is",
                self.entry.name,
                self.entry.dir.display(),
                if context_hash.is_some() {
                    " and context"
                } else {
                    ""
                },
                self.entry.dir.display()
            );
        };
        write_to(out, &self.code, cached.code())?;
        for (file, section) in [
            (&self.ast, cached.ast()),
            (&self.precomputed, cached.precomputed()),
            (&self.warnings, cached.warnings()),
        ] {
            if let (Some(file), Some(section)) = (file, section) {
                write_to(out, file, section)?;
            }
        }
        if self.json {
            let sizes = json!({
                "version": cache.version().as_str(),
                "format": cached.format(),
                "code_bytes": cached.code().len(),
                "ast_bytes": cached.ast().map(<[u8]>::len),
                "precomputed_bytes": cached.precomputed().map(<[u8]>::len),
                "warnings_bytes": cached.warnings().map(<[u8]>::len),
            });
            print::json(out, &sizes)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn write_to(out: Output<'_>, file: &Path, content: &[u8]) -> anyhow::Result<()> {
    if file == Path::new("-") {
        out.write_all(content)?;
        return Ok(());
    }
    std::fs::File::create(file)
        .and_then(|mut file| file.write_all(content))
        .with_context(|| format!("cannot write {}", file.display()))
}
