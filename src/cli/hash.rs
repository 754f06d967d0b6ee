//! `kidafs hash`: the hash that names a template's source.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::{Outcome, Output, print};
use crate::format::hash_file;

/// Print the hash of a template's source, as the engine computes it
#[derive(Args)]
pub(super) struct Hash {
    /// The template; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Hash {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let hash = hash_of(&self.file)?;
        if self.json {
            print::json(out, &json!({ "source_hash": hash }))?;
        } else {
            writeln!(out, "{hash}")?;
        }
        Ok(std::process::ExitCode::SUCCESS)
    }
}

/// The hash of a template's file; of standard input for `-`.
pub(super) fn hash_of(file: &Path) -> anyhow::Result<String> {
    let content = read(file)?;
    hash_file(&content).with_context(|| {
        format!(
            "{} is not UTF-8 text, so the engine cannot load it",
            file.display()
        )
    })
}

/// The bytes of a file; of standard input for `-`.
pub(super) fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut content = Vec::new();
        io::stdin()
            .lock()
            .read_to_end(&mut content)
            .context("cannot read standard input")?;
        return Ok(content);
    }
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
