//! The signals a daemon obeys.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Handle;

use super::logfile;
use super::role::Role;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM or SIGINT: end cleanly. Also SIGHUP, if it was installed to mean that.
    End,
    /// SIGUSR1: run the evictor now.
    Sweep,
    /// SIGHUP, where it does not mean the end: this process has opened its log anew.
    Reopened,
}

/// What SIGHUP means. It never kills: a mount left dead is worse than a daemon left alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HangUp {
    /// The terminal is gone, and the daemon is to go with it.
    Ends,
    /// The log file was moved away, and is to be opened anew.
    Reopens,
}

impl HangUp {
    /// What it means to a process of this role: only one in the foreground has a terminal.
    pub fn for_role(role: Role) -> Self {
        match role {
            Role::Command => Self::Ends,
            Role::Background | Role::Attached | Role::Supervised(_) => Self::Reopens,
        }
    }
}

/// The handlers, installed. Signals that arrive from now on wait until [`listen`](Self::listen).
#[derive(Debug)]
pub struct Signals {
    inner: signal_hook::iterator::Signals,
    hang_up: HangUp,
}

/// Ends the listening when it is dropped; the handlers stay, so that a late signal does not kill.
#[derive(Debug)]
pub struct Listening(Handle);

impl Signals {
    /// Installs the handlers. To be called before mounting: a signal that came in between would
    /// kill the process and leave a dead mount.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn install(hang_up: HangUp) -> io::Result<Self> {
        Ok(Self {
            inner: signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?,
            hang_up,
        })
    }

    /// Passes each request to `heed`, in a thread of its own that sleeps in between.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn listen(self, mut heed: impl FnMut(Request) + Send + 'static) -> io::Result<Listening> {
        let Self { mut inner, hang_up } = self;
        let handle = inner.handle();
        std::thread::Builder::new()
            .name("kidafs-signals".to_owned())
            .spawn(move || {
                for signal in inner.forever() {
                    match signal {
                        SIGUSR1 => heed(Request::Sweep),
                        SIGHUP if hang_up == HangUp::Reopens => {
                            logfile::reopen();
                            heed(Request::Reopened);
                        }
                        _ => heed(Request::End),
                    }
                }
            })?;
        Ok(Listening(handle))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.close();
    }
}
