//! `kidafs completions`.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Outcome, Output};

/// Print the completions for a shell
#[derive(Args)]
pub(super) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        // The generator panics when it cannot write, so it writes to memory.
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "kidafs", &mut text);
        out.write_all(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}
