//! `--supervise`: a small process that serves nothing itself, but starts the daemon again when it
//! died.
//!
//! What a death leaves is a dead mount, on which every access fails with ENOTCONN. It is detached
//! at once, so that the engine goes on with the directory beneath, and the next daemon adopts what
//! the engine wrote there. Three ends are no deaths, and end the supervisor too:
//!
//! - the daemon said that it was ending, because of a signal or an unmount, whatever came after;
//! - its exit status is 0;
//! - it was killed when its mount had been taken out of the tree already (`umount --lazy`).
//!
//! If the supervisor itself is killed, the daemon goes on without it; only that of `kidafs run`
//! ends, since nobody else would end it.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

use super::companion::{Beside, Companion};
use super::mount::{self, MountError};
use super::mountpoint::{self, State};
use super::role::Role;
use super::signals::{HangUp, Request, Signals};
use super::start::{self, Start, StartError, Started, Word};

/// A daemon that has served for as long is well: its death counts as the first one.
pub const QUIET: Duration = Duration::from_secs(10);

/// After so many deaths in a row, each within [`QUIET`] of its mount's answer, the supervisor gives
/// up.
pub const MOST_DEATHS: u32 = 50;

/// What the second start in a row waits; each one after that waits twice as long as the one before.
const FIRST_DELAY: Duration = Duration::from_millis(1);

/// The longest wait: short, so that a mount is back within 300 ms of each death, as long as it is
/// tried at all; and long enough for a daemon that dies at once not to keep a processor busy.
const LONGEST_DELAY: Duration = Duration::from_millis(50);

/// Why a supervisor ended, if not as it was told to.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The daemon did not even start once.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The starter was interrupted, so the mount was taken back.
    #[error("the starting process is gone, so nothing is served: {0}")]
    StarterGone(io::Error),
    /// The daemon was told to end, and did not end well.
    #[error("the daemon was told to end and did not end well ({0}): see what it said before")]
    EndedBadly(ExitStatus),
    /// Somebody else serves the directory by now.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// It dies again and again.
    #[error(
        "giving up on {}: its daemon died {MOST_DEATHS} times in a row, at last so: {last}; it is a plain directory now; look at the log, then mount it again",
        path.display()
    )]
    GaveUp {
        /// The directory.
        path: PathBuf,
        /// The last death.
        last: Death,
    },
    /// The system.
    #[error("cannot supervise a daemon: {0}")]
    System(#[from] io::Error),
}

/// How a daemon died.
#[derive(Debug)]
pub enum Death {
    /// Its process ended.
    Ended(ExitStatus),
    /// There was none, or it was lost.
    NoProcess(io::Error),
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(status) => write!(f, "{status}"),
            Self::NoProcess(error) => write!(f, "no process, {error}"),
        }
    }
}

impl Death {
    /// Whether it had no chance to take its mount along.
    fn was_sudden(&self) -> bool {
        match self {
            Self::Ended(status) => status.code().is_none(),
            Self::NoProcess(_) => false,
        }
    }
}

/// Starts this program with `arguments` as a daemon that serves `dir`, and again whenever it died.
/// Returns when it has ended as it was told to: by a signal to this process or to it, or by an
/// unmount. In the daemon [`Role::is_supervised`] holds.
///
/// To this process SIGTERM and SIGINT mean what they mean to a daemon (and SIGHUP in the
/// foreground); SIGUSR1 is passed on. `beside` runs as long as the mount does. Starter and service manager are told once that the mount
/// answers. In the background, standard error then goes to `log`.
///
/// To be called on the main thread, and with a `dir` and `arguments` that do not depend on the
/// working directory.
///
/// # Errors
/// When the daemon did not start the first time, did not end well when it was told to, or died too
/// often. A dead mount is detached in each case.
pub fn supervise(
    dir: &Path,
    arguments: &[OsString],
    log: Option<File>,
    beside: Option<Beside>,
) -> Result<(), SuperviseError> {
    let start = Start::begin_supervising()?;
    // Before there is a daemon to look after: a signal must not kill this process alone.
    let signals = Signals::install(HangUp::for_role(start.role()))?;
    let (sender, events) = mpsc::channel();
    let from_signals = sender.clone();
    let _listening = signals.listen(move |request| {
        // The receiver is gone only when the supervisor has ended.
        let _ = from_signals.send(Event::Request(request));
    })?;
    let supervisor = Supervisor {
        dir,
        arguments,
        role: start.role().of_supervised(),
        start,
        untold: Some(log),
        last_death: None,
        beside,
        companion: None,
        sender,
        events,
    };
    supervisor.run()
}

/// What can happen meanwhile.
enum Event {
    Request(Request),
    Said(Word),
    Ended(io::Result<ExitStatus>),
}

/// How one daemon's life ended.
enum End {
    /// It, or the supervisor, was told to end, and nothing was lost.
    Wanted,
    /// The same, but something may be lost.
    Badly(ExitStatus),
    /// It died, after its mount had answered for a while; `None` if it never did.
    Died(Death, Option<Duration>),
}

struct Supervisor<'a> {
    dir: &'a Path,
    arguments: &'a [OsString],
    /// The daemon's.
    role: Role,
    start: Start,
    /// Where to log to once the starter is told, as long as it is not.
    untold: Option<Option<File>>,
    last_death: Option<Instant>,
    /// What is to run beside the daemon, and what does.
    beside: Option<Beside>,
    companion: Option<Companion>,
    sender: Sender<Event>,
    events: Receiver<Event>,
}

impl Supervisor<'_> {
    fn run(mut self) -> Result<(), SuperviseError> {
        let mut deaths = Deaths::default();
        loop {
            let first = self.untold.is_some();
            let (death, served) = match self.one_life()? {
                End::Wanted => return Ok(()),
                End::Badly(status) => {
                    self.detach()?;
                    return Err(SuperviseError::EndedBadly(status));
                }
                End::Died(death, served) => (death, served),
            };
            if first && served.is_none() {
                // Whatever is the matter, the daemon has met it too, and has said so.
                let _ = self.detach();
                return Err(SuperviseError::Start(match death {
                    Death::Ended(status) => StartError::of(status),
                    Death::NoProcess(error) => StartError::Io(error),
                }));
            }
            let was_mounted = self.detach()?;
            if served.is_some() && death.was_sudden() && !was_mounted {
                log::warn!(
                    "the daemon died ({death}), but {} had been unmounted before",
                    self.dir.display()
                );
                return Ok(());
            }
            let Some(delay) = deaths.next(served) else {
                return Err(SuperviseError::GaveUp {
                    path: self.dir.to_owned(),
                    last: death,
                });
            };
            log::error!(
                "the daemon of {} died ({death}), {} of at most {MOST_DEATHS} times in a row: starting it again",
                self.dir.display(),
                deaths.0
            );
            if self.is_told_to_end_within(delay) {
                self.start.stopping();
                return Ok(());
            }
        }
    }

    /// Starts the daemon and stays with it to its end.
    fn one_life(&mut self) -> Result<End, SuperviseError> {
        let daemon = match self.start_daemon() {
            Ok(daemon) => daemon,
            Err(error) => return Ok(End::Died(Death::NoProcess(error), None)),
        };
        let mut answered = None;
        let mut wanted = false;
        loop {
            // This end holds a sender too, so the channel never closes.
            let Ok(event) = self.events.recv() else {
                let error = io::Error::other("its listener vanished");
                return Ok(End::Died(Death::NoProcess(error), None));
            };
            match event {
                Event::Request(Request::End) => {
                    self.stopping(&mut wanted);
                    daemon.send(Signal::TERM);
                }
                // Before that it may not be prepared for it, and would be killed.
                Event::Request(Request::Sweep) if answered.is_some() => daemon.send(Signal::USR1),
                Event::Request(Request::Reopened) if answered.is_some() => {
                    daemon.send(Signal::HUP);
                }
                Event::Request(Request::Sweep | Request::Reopened) => {}
                Event::Said(Word::Ending) => self.stopping(&mut wanted),
                Event::Said(Word::Ready) => {
                    answered = Some(Instant::now());
                    // One that is about to end is of no use to anybody who waits for it.
                    if !wanted && let Err(error) = self.answers(&daemon) {
                        daemon.send(Signal::TERM);
                        self.await_end();
                        self.detach()?;
                        return Err(SuperviseError::StarterGone(error));
                    }
                }
                Event::Ended(Ok(status)) if status.success() => {
                    self.stopping(&mut wanted);
                    return Ok(End::Wanted);
                }
                Event::Ended(Ok(status)) if wanted && answered.is_some() => {
                    return Ok(End::Badly(status));
                }
                Event::Ended(Ok(_)) if wanted => {
                    // It was killed half-way into its start, and may have mounted.
                    self.detach()?;
                    return Ok(End::Wanted);
                }
                Event::Ended(end) => {
                    self.last_death = Some(Instant::now());
                    let death = end.map_or_else(Death::NoProcess, Death::Ended);
                    return Ok(End::Died(death, answered.map(|since| since.elapsed())));
                }
            }
        }
    }

    /// The daemon's mount answers: tells the starter if it is the first time.
    fn answers(&mut self, daemon: &Daemon) -> io::Result<()> {
        if let Some(log) = self.untold.take() {
            if let Some(beside) = self.beside.take() {
                // What a companion says goes where the daemon's words go.
                let companion = Companion::start(beside.arguments, log.as_ref());
                companion.hear(beside.wait);
                self.companion = Some(companion);
            }
            return self.start.ready(log);
        }
        log::warn!(
            "{} is served again, by process {}{}",
            self.dir.display(),
            daemon.pid,
            self.last_death
                .map(|death| format!(", after {} ms", death.elapsed().as_millis()))
                .unwrap_or_default()
        );
        Ok(())
    }

    fn start_daemon(&self) -> io::Result<Daemon> {
        let started = start::spawn(self.role, self.arguments.iter().cloned())?;
        let pid = Pid::from_child(started.child());
        let sender = self.sender.clone();
        let watched = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(io::Error::from)
            .and_then(|process| {
                std::thread::Builder::new()
                    .name("kidafs-daemon".to_owned())
                    .spawn(move || listen(started, &sender))?;
                Ok(process)
            });
        match watched {
            Ok(process) => Ok(Daemon { pid, process }),
            Err(error) => {
                // Nobody has waited for it, so the id is still its own.
                let _ = rustix::process::kill_process(pid, Signal::TERM);
                Err(error)
            }
        }
    }

    /// Waits for the end of a daemon that is of no use.
    fn await_end(&self) {
        while let Ok(event) = self.events.recv() {
            if matches!(event, Event::Ended(_)) {
                return;
            }
        }
    }

    fn stopping(&mut self, wanted: &mut bool) {
        // It must not write into the directory beneath.
        self.companion = None;
        if !std::mem::replace(wanted, true) {
            self.start.stopping();
        }
    }

    /// Detaches what a dead daemon left; whether there was anything.
    fn detach(&self) -> Result<bool, SuperviseError> {
        let dead = mountpoint::inspect(self.dir)
            .is_ok_and(|found| matches!(found.state, State::Dead(mount) if mount.is_kidafs()));
        match mount::clear(self.dir) {
            Ok(_) => {}
            Err(error @ MountError::AlreadyServed { .. }) => return Err(error.into()),
            // The next daemon meets it as well, and says so; it may pass.
            Err(error) => log::warn!("{error}"),
        }
        Ok(dead)
    }

    /// Waits before the next start.
    fn is_told_to_end_within(&self, delay: Duration) -> bool {
        let end = Instant::now() + delay;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::Request(Request::End)) => return true,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

/// A daemon's process, named for good, whereas its id may be another's once it was waited for.
struct Daemon {
    pid: Pid,
    process: OwnedFd,
}

impl Daemon {
    fn send(&self, signal: Signal) {
        // It may have ended this moment.
        let _ = rustix::process::pidfd_send_signal(self.process.as_fd(), signal);
    }
}

/// Passes on what a daemon says, and its end.
fn listen(mut daemon: Started, events: &Sender<Event>) {
    // One that cannot be heard is as silent as one that is dead; its end is waited for either way.
    while let Ok(Some(word)) = daemon.hear() {
        let _ = events.send(Event::Said(word));
    }
    let _ = events.send(Event::Ended(daemon.wait()));
}

/// Deaths in a row.
#[derive(Debug, Default)]
struct Deaths(u32);

impl Deaths {
    /// Counts the death of a daemon whose mount answered for `served`, if it ever did. What the
    /// next start is to wait; `None` if there is to be none.
    fn next(&mut self, served: Option<Duration>) -> Option<Duration> {
        if served.is_some_and(|served| served >= QUIET) {
            self.0 = 0;
        }
        self.0 += 1;
        match self.0 {
            MOST_DEATHS.. => None,
            1 => Some(Duration::ZERO),
            deaths => Some(
                FIRST_DELAY
                    .saturating_mul(1_u32.checked_shl(deaths - 2).unwrap_or(u32::MAX))
                    .min(LONGEST_DELAY),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Option<Duration> = Some(Duration::from_millis(1));

    #[test]
    fn the_first_start_is_immediate_the_next_ones_wait_longer_and_longer() {
        let mut deaths = Deaths::default();
        assert_eq!(deaths.next(SOON), Some(Duration::ZERO));
        let mut before = Duration::ZERO;
        while before < LONGEST_DELAY {
            let delay = deaths.next(SOON).unwrap();
            assert!(delay > before, "{delay:?} after {before:?}");
            before = delay;
        }
        assert_eq!(deaths.next(None), Some(LONGEST_DELAY));
    }

    #[test]
    fn it_gives_up_at_the_stated_death_in_a_row() {
        let mut deaths = Deaths::default();
        for _ in 1..MOST_DEATHS {
            assert!(deaths.next(None).is_some());
        }
        assert_eq!(deaths.next(None), None);
    }

    #[test]
    fn after_a_quiet_time_a_death_is_the_first_one_again() {
        let mut deaths = Deaths::default();
        for _ in 1..MOST_DEATHS {
            deaths.next(SOON);
        }
        assert_eq!(deaths.next(Some(QUIET)), Some(Duration::ZERO));
        assert!(deaths.next(Some(QUIET / 2)).unwrap() > Duration::ZERO);
    }
}
