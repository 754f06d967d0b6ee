//! `kidafs run`: a mount for as long as a command runs.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, PidfdFlags, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::mount;
use super::start::{self, Role, StartError};

/// Why the command was not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no mount.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The command could not be started.
    #[error("cannot run {}: {source}", command.display())]
    Command {
        /// Its name.
        command: OsString,
        /// The system's reason.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot run a command on a mount: {0}")]
    Io(#[from] io::Error),
}

impl RunError {
    /// The exit status that says so, as env(1) and shells have it: 127 for a command that is not
    /// there, 126 for one that cannot be run, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Command { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Command { .. } => 126,
            Self::Start(_) | Self::Io(_) => 1,
        }
    }
}

/// Starts a daemon with `arguments` (in it [`Role::of_this_process`] is [`Role::Attached`]), runs
/// `command` with this process's standard streams, has the daemon end, and returns the command's
/// exit status, 128 and the signal's number if a signal killed it.
///
/// The daemon is a process of its own: it clears the umask and raises limits, which the command
/// must not inherit, and a Ctrl-C must not reach it. SIGTERM and SIGHUP are passed on to the
/// command. SIGINT and SIGQUIT are too, unless this process is in the foreground of a terminal,
/// which then sends them to the command itself.
///
/// # Errors
/// When the command was not run. A daemon that does not end well is logged: the status is the
/// command's.
pub fn run(
    dir: &Path,
    arguments: impl IntoIterator<Item = OsString>,
    mut command: Command,
) -> Result<u8, RunError> {
    let daemon = start::start(Role::Attached, arguments)?;
    let result = run_command(&mut command);
    match daemon.end() {
        Ok(status) if status.success() => {}
        Ok(status) => {
            log::warn!("the daemon ended badly: {status}");
            // Killed, it has left a dead mount.
            if let Err(error) = mount::clear(dir) {
                log::warn!("{error}");
            }
        }
        Err(error) => log::warn!("cannot end the daemon: {error}"),
    }
    Ok(exit_code(result?))
}

fn run_command(command: &mut Command) -> Result<ExitStatus, RunError> {
    // Before the command starts: none may be missed, and none may kill this process now.
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGHUP, SIGINT, SIGQUIT])?;
    let mut child = command.spawn().map_err(|source| RunError::Command {
        command: command.get_program().to_owned(),
        source,
    })?;
    // Names this child for good, whereas its id may be another's once it was waited for.
    let process = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
        .map_err(io::Error::from)?;
    let handle = signals.handle();
    let forwarding = std::thread::Builder::new()
        .name("kidafs-forward".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                let signal = match signal {
                    SIGTERM => Signal::TERM,
                    SIGHUP => Signal::HUP,
                    SIGINT if !in_foreground() => Signal::INT,
                    SIGQUIT if !in_foreground() => Signal::QUIT,
                    _ => continue,
                };
                // It may have ended this moment.
                let _ = rustix::process::pidfd_send_signal(process.as_fd(), signal);
            }
        })?;
    let status = child.wait();
    handle.close();
    let _ = forwarding.join();
    Ok(status?)
}

/// Whether this process's group is the one a terminal sends its signals to.
fn in_foreground() -> bool {
    let Ok(terminal) = std::fs::File::open("/dev/tty") else {
        return false;
    };
    rustix::termios::tcgetpgrp(&terminal).is_ok_and(|group| group == rustix::process::getpgrp())
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    // Both are below 256 on Linux.
    u8::try_from(code).unwrap_or(1)
}
