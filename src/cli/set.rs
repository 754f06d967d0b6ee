//! `kidafs set`: the engine's `BytecodeCache.set`, from files.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::entry::EntryArgs;
use super::{Outcome, Output, hash, print};
use crate::kida::{Parts, Stored};

/// Store an entry whose sections are in files
#[derive(Args)]
pub(super) struct Set {
    #[command(flatten)]
    entry: EntryArgs,

    /// The marshalled code; - for standard input
    #[arg(long, value_name = "IN")]
    code: PathBuf,

    /// The pickled syntax tree
    #[arg(long, value_name = "IN")]
    ast: Option<PathBuf>,

    /// The pickled precomputed values
    #[arg(long, value_name = "IN")]
    precomputed: Option<PathBuf>,

    /// The compiler's warnings, a JSON list, for an engine that keeps them (…_warn1)
    #[arg(long, value_name = "IN")]
    warnings: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Set {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let source_hash = self.entry.source_hash()?;
        let code = hash::read(&self.code)?;
        let read = |file: &Option<PathBuf>| file.as_deref().map(hash::read).transpose();
        let ast = read(&self.ast)?;
        let precomputed = read(&self.precomputed)?;
        let warnings = read(&self.warnings)?;
        let cache = self.entry.cache_or_create()?;
        let context_hash = self.entry.context_hash.as_deref();
        let parts = Parts {
            code: &code,
            precomputed: precomputed.as_deref(),
            ast: ast.as_deref(),
            warnings: warnings.as_deref(),
        };
        let dir = self.entry.dir.display();
        let stored = cache
            .set(&self.entry.name, &source_hash, context_hash, &parts)
            .with_context(|| format!("nothing was stored in {dir}"))?;
        let format = match stored {
            Stored::Yes(format) => format,
            Stored::No(error) => {
                return Err(error).with_context(|| format!("cannot store an entry in {dir}"));
            }
        };
        let path = cache.path(&self.entry.name, &source_hash, context_hash)?;
        if self.json {
            print::json(
                out,
                &json!({
                    "path": path.to_string_lossy(),
                    "version": cache.version().as_str(),
                    "format": format,
                }),
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
