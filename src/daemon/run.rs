//! `kidafs run`: a mount for as long as a command runs.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use signal_hook::consts::{
    SIGABRT, SIGBUS, SIGCHLD, SIGINT, SIGPIPE, SIGQUIT, SIGSYS, SIGTRAP, SIGTSTP, SIGWINCH,
};

use super::start::{self, Daemon, Role, StartError};
use super::{inherited, mount};

/// Why the command was not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
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
            Self::Io(_) => 1,
        }
    }
}

/// Starts a daemon with `arguments`; in it [`Role::of_this_process`] is [`Role::Attached`].
///
/// # Errors
/// When it did not start; nothing was said about it.
pub fn start(arguments: impl IntoIterator<Item = OsString>) -> Result<Daemon, StartError> {
    start::start_quietly(Role::Attached, arguments)
}

/// Runs `command` on the mount of `daemon` at `dir`, with this process's
/// standard streams, has the daemon end, and returns the command's
/// exit status, 128 and the signal's number if a signal killed it.
///
/// The daemon is a process of its own: it clears the umask and raises limits, which the command
/// must not inherit, and a Ctrl-C must not reach it. Every signal that can be caught is passed on to
/// the command, but for those that a terminal sends to it by itself. Where the command is stopped
/// this process stops too, so that a shell's job control sees it. As the first process of a
/// container it reaps whatever ends.
///
/// # Errors
/// When the command was not run. A daemon that does not end well is logged: the status is the
/// command's.
pub fn run(dir: &Path, mut daemon: Daemon, command: Command) -> Result<u8, RunError> {
    let result = run_command(command, Some(&mut daemon));
    match daemon.end() {
        Ok(status) if status.success() => {}
        // A process that the command left behind, as a rule; that is no fault of the command's.
        Ok(status) if status.code().is_some() => {
            log::warn!(
                "files of {} were still open when the command had ended, or not everything could be written",
                dir.display()
            );
            clear(dir);
        }
        Ok(status) => {
            log::warn!("the daemon of {} was killed: {status}", dir.display());
            // It has left a dead mount.
            clear(dir);
        }
        Err(error) => log::warn!("cannot end the daemon: {error}"),
    }
    Ok(exit_code(result?))
}

fn clear(dir: &Path) {
    if let Err(error) = mount::clear(dir) {
        log::warn!("{error}");
    }
}

/// Runs `command` as [`run`] does, on whatever is at the directory already.
///
/// # Errors
/// As [`run`].
pub fn run_plainly(command: Command) -> Result<u8, RunError> {
    run_command(command, None).map(exit_code)
}

fn run_command(mut command: Command, daemon: Option<&mut Daemon>) -> Result<ExitStatus, RunError> {
    // Before the command starts: none may be missed, and none may kill this process now.
    let mut signals = signal_hook::iterator::Signals::new(forwarded())?;
    let child = command.spawn().map_err(|source| RunError::Command {
        command: command.get_program().to_owned(),
        source,
    })?;
    let pid = Pid::from_child(&child);
    // Names this child for good, whereas its id may be another's once it was waited for.
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?;
    let handle = signals.handle();
    let forwarding = std::thread::Builder::new()
        .name("kidafs-forward".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                if !(BY_TERMINAL.contains(&signal) && in_foreground()) {
                    pass_on(&process, pid, signal);
                }
            }
        })?;
    let status = wait(pid, daemon);
    handle.close();
    let _ = forwarding.join();
    Ok(status?)
}

/// What a terminal sends to the command itself when this process is in its foreground.
const BY_TERMINAL: [i32; 4] = [SIGINT, SIGQUIT, SIGTSTP, SIGWINCH];

/// The signals that are passed on: all but those that cannot be caught, that say something about
/// this very process, that the C library keeps for itself, and that the starter ignored: those the
/// command ignores as well, unless it chooses not to.
fn forwarded() -> Vec<i32> {
    const OWN: [i32; 6] = [SIGCHLD, SIGPIPE, SIGBUS, SIGTRAP, SIGSYS, SIGABRT];
    let ignored = inherited::ignored_signals();
    (1..=LAST_SIGNAL)
        .filter(|signal| !inherited::RESERVED.contains(signal))
        .filter(|signal| !signal_hook::consts::FORBIDDEN.contains(signal))
        .filter(|signal| !OWN.contains(signal) && !ignored.contains(signal))
        .collect()
}

/// SIGRTMAX of Linux.
const LAST_SIGNAL: i32 = 64;

fn pass_on(process: &OwnedFd, pid: Pid, signal: i32) {
    // It may have ended this moment.
    match Signal::from_named_raw(signal) {
        Some(signal) => {
            let _ = rustix::process::pidfd_send_signal(process.as_fd(), signal);
        }
        // A real-time one has no name here; every shell can send it.
        None => {
            let kill = format!("kill -{signal} {}", pid.as_raw_nonzero());
            let _ = Command::new("/bin/sh").arg("-c").arg(kill).status();
        }
    }
}

/// Waits until the command has ended, and stops whenever it does.
fn wait(command: Pid, mut daemon: Option<&mut Daemon>) -> io::Result<ExitStatus> {
    // The kernel gives the children of those that end to the first process of a pid namespace.
    let first = rustix::process::getpid() == Pid::INIT;
    loop {
        let options = WaitOptions::UNTRACED;
        let waited = if first {
            rustix::process::wait(options)
        } else {
            rustix::process::waitpid(Some(command), options)
        };
        match waited {
            Ok(Some((pid, status))) if pid == command && status.stopped() => {
                let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
            }
            Ok(Some((pid, status))) if pid == command => {
                return Ok(ExitStatus::from_raw(status.as_raw()));
            }
            Ok(Some((pid, status))) if !status.stopped() => {
                if let Some(daemon) = &mut daemon {
                    daemon.has_ended(pid, ExitStatus::from_raw(status.as_raw()));
                }
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
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
