//! `kidafs man`.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, CommandFactory};
use clap_mangen::Man as Page;

use super::{Cli, Outcome, Output};

/// Print the manual page, of kidafs or of one of its commands
#[derive(Args)]
pub(super) struct Man {
    /// The command
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

impl Man {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let mut cli = Cli::command();
        cli.build();
        let page = match &self.command {
            None => Page::new(cli),
            Some(name) => {
                let Some(command) = cli.find_subcommand(name) else {
                    bail!("{name:?} is no command: `kidafs --help` lists them");
                };
                let title = format!("kidafs-{name}");
                Page::new(command.clone().display_name(&title)).title(title)
            }
        };
        page.render(&mut { out })?;
        Ok(ExitCode::SUCCESS)
    }
}
