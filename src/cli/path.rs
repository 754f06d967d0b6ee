//! `kidafs path`: where an entry is.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::entry::EntryArgs;
use super::{Outcome, Output, print};

/// Print the path of an entry, whether it is there or not
#[derive(Args)]
pub(super) struct Path {
    #[command(flatten)]
    entry: EntryArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Path {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let source_hash = self.entry.source_hash()?;
        let cache = self.entry.cache()?;
        let context_hash = self.entry.context_hash.as_deref();
        let path = cache.path(&self.entry.name, &source_hash, context_hash)?;
        if self.json {
            let exists = path.is_file();
            print::json(
                out,
                &json!({
                    "path": path.to_string_lossy(),
                    "version": cache.version().as_str(),
                    "source_hash": source_hash,
                    "exists": exists,
                }),
            )?;
        } else {
            use std::os::unix::ffi::OsStrExt;
            out.write_all(path.as_os_str().as_bytes())?;
            writeln!(out)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
