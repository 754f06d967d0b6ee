//! `kidafs run`: a mount for as long as a command runs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::mount::{absolute, daemon_arguments};
use super::options::{self, MountOptions};
use super::{Outcome, Output, survey};
use crate::daemon::run::{self, RunError};
use crate::daemon::start::StartError;

/// Mount, run a command, unmount; the exit status is the command's
#[derive(Args)]
pub(super) struct Run {
    /// The directory; created if it is missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// The command and its arguments
    #[arg(value_name = "CMD", last = true, required = true, num_args = 1..)]
    command: Vec<OsString>,

    /// Where the daemon logs to; nothing is logged otherwise
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,

    #[command(flatten)]
    options: MountOptions,
}

impl Run {
    pub(super) fn run(self, _out: Output<'_>) -> Outcome {
        let resolved = options::resolve(&self.options)?;
        let dir = absolute(&self.dir)?;
        let log_file = self.log_file.as_deref().map(absolute).transpose()?;
        survey::guard(&dir, &resolved.config)?;
        let mut words = self.command.into_iter();
        let mut command = std::process::Command::new(words.next().unwrap_or_default());
        command.args(words);
        let arguments = daemon_arguments(&dir, &resolved, log_file.as_deref());
        match run::run(&dir, arguments, command) {
            Ok(status) => Ok(ExitCode::from(status)),
            // The daemon has said why.
            Err(RunError::Start(StartError::Failed(_))) => Ok(ExitCode::FAILURE),
            Err(error) => {
                let status = error.exit_code();
                super::report(&error.into());
                Ok(ExitCode::from(status))
            }
        }
    }
}
