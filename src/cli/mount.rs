//! `kidafs mount`, which is also what the daemon in the background runs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::options::{self, MountOptions};
use super::{Outcome, Output, first_sweep, survey, warm};
use crate::config::ResolvedConfig;
use crate::daemon::companion::Beside;
use crate::daemon::logfile;
use crate::daemon::serve::Ended;
use crate::daemon::start::{self, Role, StartError};
use crate::daemon::supervise::{self, SuperviseError};
use crate::server;

/// Serve a directory, and return once it answers
#[derive(Args)]
pub(super) struct Mount {
    /// The directory; created if it is missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Stay in the foreground, and log to standard error
    #[arg(short, long)]
    foreground: bool,

    /// Mount nothing: show what is no cache entry, and what the first sweep would remove
    #[arg(long)]
    check: bool,

    /// With --check: print JSON
    #[arg(long, requires = "check")]
    json: bool,

    #[command(flatten)]
    options: MountOptions,

    /// Only check the options (`mount --fake`)
    #[arg(skip)]
    fake: bool,
}

impl Mount {
    /// For the mount helper.
    pub(super) fn new(dir: PathBuf, options: MountOptions, fake: bool) -> Self {
        Self {
            dir,
            foreground: false,
            check: false,
            json: false,
            options,
            fake,
        }
    }

    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let resolved = options::resolve(&self.options)?;
        if self.fake {
            return Ok(ExitCode::SUCCESS);
        }
        if resolved.config.remote.url.is_some() && !resolved.config.supervise {
            anyhow::bail!(
                "--remote needs the supervisor, which starts what carries the cache: leave --no-supervise out"
            );
        }
        let dir = absolute(&self.dir)?;
        if self.check {
            return first_sweep::check(out, &dir, &resolved.config, self.json);
        }
        let role = Role::of_this_process();
        let foreign = match role {
            Role::Command => survey::guard(&dir, &resolved.config)?,
            _ => None,
        };
        if self.foreground || role != Role::Command {
            say(foreign);
            return if resolved.config.supervise && !role.is_supervised() {
                supervise(&dir, &resolved)
            } else {
                serve(&dir, &resolved)
            };
        }
        match start::start(Role::Background, daemon_arguments(&dir, &resolved)) {
            Ok(_) => {
                say(foreign);
                if resolved.config.warm {
                    warm::warm_mount(&dir)?;
                }
                Ok(ExitCode::SUCCESS)
            }
            // The daemon has said why.
            Err(StartError::Failed(_)) => Ok(ExitCode::FAILURE),
            Err(error) => Err(error.into()),
        }
    }
}

/// Says what a directory that is served holds beside entries.
pub(super) fn say(foreign: Option<String>) {
    if let Some(sentence) = foreign {
        log::warn!("{sentence}");
    }
}

/// The path from the root: the daemon leaves the directory it was started in.
pub(super) fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| {
        format!(
            "cannot make {} absolute, so write it from /",
            path.display()
        )
    })
}

/// The arguments with which the daemon serves `dir` just so, whatever its environment says.
pub(super) fn daemon_arguments(dir: &Path, resolved: &ResolvedConfig) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["mount".into()];
    arguments.extend(options::arguments(resolved));
    arguments.push("--".into());
    arguments.push(dir.into());
    arguments
}

/// Serves `dir` in this process until it is unmounted.
fn serve(dir: &Path, resolved: &ResolvedConfig) -> Outcome {
    let log = resolved.config.log_file.as_deref();
    let log = log.map(logfile::open).transpose()?;
    match server::serve(dir, resolved, log)? {
        Ended::Cleanly => Ok(ExitCode::SUCCESS),
        Ended::Aborted => Ok(ExitCode::FAILURE),
    }
}

/// Has a process of its own serve `dir`, and starts it again when it died, until it is unmounted.
fn supervise(dir: &Path, resolved: &ResolvedConfig) -> Outcome {
    let log = resolved.config.log_file.as_deref();
    let log = log.map(logfile::open).transpose()?;
    let arguments = daemon_arguments(dir, resolved);
    match supervise::supervise(dir, &arguments, log, beside(dir, resolved)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // The daemon has said why.
        Err(SuperviseError::Start(StartError::Failed(_))) => Ok(ExitCode::FAILURE),
        Err(error) => Err(error.into()),
    }
}

/// What carries the cache to and from the remote, if there is one.
fn beside(dir: &Path, resolved: &ResolvedConfig) -> Option<Beside> {
    resolved.config.remote.url.as_ref()?;
    #[cfg(feature = "remote")]
    return Some(Beside {
        arguments: super::sync::child_arguments(dir, &resolved.config),
        wait: resolved.config.remote.wait,
    });
    #[cfg(not(feature = "remote"))]
    {
        let _ = dir;
        None
    }
}
