//! `kidafs ping`: whether a mount is alive, for scripts and health checks.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{Outcome, Output};
use crate::daemon::mountpoint::{self, State};

/// Whether a mount answers: exit status 0 if it does, 1 if not; says nothing
#[derive(Args)]
pub(super) struct Ping {
    /// The mount point
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = super::print::duration)]
    timeout: Duration,
}

impl Ping {
    pub(super) fn run(self, _out: Output<'_>) -> Outcome {
        let found = mountpoint::inspect_within(&self.dir, self.timeout)?;
        Ok(match found.state {
            State::Live { .. } => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        })
    }
}
