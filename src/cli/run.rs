//! `kidafs run`: a mount for as long as a command runs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::mount::{absolute, daemon_arguments};
use super::options::{self, MountOptions};
use super::{Outcome, Output, survey};
use crate::daemon::mountpoint::{self, State};
use crate::daemon::run::{self, RunError};

/// Mount, run a command, unmount; the exit status is the command's
#[derive(Args)]
pub(super) struct Run {
    /// The directory; created if it is missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// The command and its arguments
    #[arg(value_name = "CMD", last = true, required = true, num_args = 1..)]
    command: Vec<OsString>,

    /// Fail where there can be no mount, and do not run CMD on the plain directory
    #[arg(long)]
    require_mount: bool,

    #[command(flatten)]
    options: MountOptions,
}

impl Run {
    pub(super) fn run(self, _out: Output<'_>) -> Outcome {
        let resolved = options::resolve(&self.options)?;
        let dir = absolute(&self.dir)?;
        let mut words = self.command.into_iter();
        let mut command = std::process::Command::new(words.next().unwrap_or_default());
        command.args(words);
        match mountpoint::inspect(&dir) {
            Ok(found) if matches!(found.state, State::Live { .. }) => {
                log::info!("{} is served already, and is used as it is", dir.display());
                return status_of(run::run_plainly(command));
            }
            // Whatever it is, the daemon meets it as well, and says what it is.
            _ => {}
        }
        let foreign = survey::guard(&dir, &resolved.config)?;
        let arguments = daemon_arguments(&dir, &resolved);
        let daemon = match run::start(arguments) {
            Ok(daemon) => daemon,
            Err(error) if self.require_mount => bail!(error),
            Err(error) => {
                log::warn!(
                    "{error}; the command runs on the plain directory {}",
                    dir.display()
                );
                return status_of(run::run_plainly(command));
            }
        };
        super::mount::say(foreign);
        status_of(run::run(&dir, daemon, command))
    }
}

/// The exit status of the command, or the one that says why there is none.
fn status_of(ran: Result<u8, RunError>) -> Outcome {
    ran.map(ExitCode::from).or_else(|error| {
        let status = error.exit_code();
        super::report(&error.into());
        Ok(ExitCode::from(status))
    })
}
