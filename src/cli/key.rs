//! `kidafs key`: makes keys and shows them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

#[cfg(feature = "remote")]
use super::key_pair::{Generate, Show};
use super::{Outcome, Output, print};
use crate::daemon::seal_key;

/// Make and show keys
#[derive(Subcommand)]
pub(super) enum Key {
    #[cfg(feature = "remote")]
    Generate(Generate),
    #[cfg(feature = "remote")]
    Show(Show),
    Seal(Seal),
}

impl Key {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        match self {
            #[cfg(feature = "remote")]
            Self::Generate(command) => command.run(out),
            #[cfg(feature = "remote")]
            Self::Show(command) => command.run(out),
            Self::Seal(command) => command.run(out),
        }
    }
}

/// Make a seal key, for --seal-key: a file that its owner alone may read. What is there already is left alone
#[derive(Args)]
pub(super) struct Seal {
    /// The file to make, outside of the directory that it is to seal
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Made {
    file: String,
}

impl Seal {
    fn run(self, out: Output<'_>) -> Outcome {
        seal_key::make(&self.file)?;
        let made = Made {
            file: self.file.to_string_lossy().into_owned(),
        };
        if self.json {
            print::json(out, &made)?;
        } else {
            let text = format!(
                "made {}: keep it where who writes the cache cannot read it",
                made.file
            );
            writeln!(out, "{}", print::clean(&text))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
