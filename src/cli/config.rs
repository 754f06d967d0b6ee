//! `kidafs config`: the options that would apply, and where each value came from.

use std::process::ExitCode;

use clap::Args;

use super::options::{self, MountOptions};
use super::print::{self, Side, Table};
use super::{Outcome, Output};

/// Show the options that a mount would have, and where each value comes from
#[derive(Args)]
pub(super) struct Show {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    options: MountOptions,
}

impl Show {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let resolved = options::resolve(&self.options)?;
        if self.json {
            print::json(out, &resolved.settings)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut table = Table::new([
            ("OPTION", Side::Left),
            ("VALUE", Side::Left),
            ("FROM", Side::Left),
        ]);
        for (name, setting) in resolved.settings {
            table.add([name.to_owned(), setting.value, setting.origin.to_string()]);
        }
        table.print(out)?;
        Ok(ExitCode::SUCCESS)
    }
}
