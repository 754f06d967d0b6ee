//! `kidafs umount`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{Outcome, Output, print};
use crate::daemon::unmount::{self, Unmounted};

/// Write everything, unmount, and wait for the daemon to end
#[derive(Args)]
pub(super) struct Umount {
    /// The mount point
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Detach a mount that is in use: it ends when its last file is closed
    #[arg(long)]
    lazy: bool,

    /// How long to wait for the daemon
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Umount {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let (word, note) = match unmount::unmount(&self.dir, self.lazy, self.timeout)? {
            Unmounted::Ended => ("ended", None),
            Unmounted::NotWaited => (
                "not-waited",
                Some("its daemon belongs to another user and may still be writing"),
            ),
            Unmounted::Detached => (
                "detached",
                Some("it is in use, and its daemon goes on until the last file is closed"),
            ),
            Unmounted::Dead => ("dead", Some("its daemon had died")),
        };
        if self.json {
            print::json(out, &json!({ "unmounted": word }))?;
        } else if let Some(note) = note {
            writeln!(out, "{} is unmounted; {note}", self.dir.display())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
