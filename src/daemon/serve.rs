//! A daemon's time of service, and its clean end.
//!
//! It ends in one of four ways:
//!
//! - somebody else unmounts: the kernel ends the session;
//! - SIGTERM or SIGINT: the daemon unmounts, and the kernel ends the session;
//! - the same while files are open: the mount is detached, so that new look-ups see the backing
//!   directory, and open files are served until they are closed, for [`BUSY_LIMIT`] at most; then,
//!   or at a second signal, the connection is aborted and they fail with ENOTCONN;
//! - the session fails: the mount, now dead, is detached, and the backing directory seen.
//!
//! In each of them everything accepted is written before the process ends.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::mount::Mounted;
use super::signals::{Request, Signals};
use super::start::Start;
use super::unmount::UnmountError;

/// How long open files keep a daemon that was told to end. Shorter than the ten seconds that
/// `docker stop` waits.
pub const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// How long an aborted session may take to notice.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

/// What is served, as far as a process's life is concerned.
pub trait Service {
    /// Runs the evictor soon; returns at once. Called on SIGUSR1.
    fn sweep(&self);

    /// Writes everything that was accepted. Called once, last; if the session had to be abandoned
    /// requests may still be coming in.
    ///
    /// # Errors
    /// When something cannot be written.
    fn flush(&self) -> io::Result<()>;
}

/// How a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Unmounted, and every file closed.
    Cleanly,
    /// Files were still open; they fail from now on.
    Aborted,
}

/// Why a service did not end well. Everything that could be written was.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It did not begin.
    #[error("cannot begin to serve: {0}")]
    Begin(io::Error),
    /// The starter was interrupted, so the mount was taken back.
    #[error("the starting process is gone, so nothing is served: {0}")]
    StarterGone(io::Error),
    /// The session failed.
    #[error("serving stopped: {0}; mount again, and report it if it happens again")]
    Session(io::Error),
    /// Not everything could be written.
    #[error("not everything could be written to the backing directory: {0}")]
    Flush(io::Error),
}

/// What can happen meanwhile.
enum Event {
    Request(Request),
    SessionEnded(io::Result<()>),
}

/// Runs `session` (fuser's `Session::run`) in a thread of its own until the mount's end, reports
/// the start and obeys signals meanwhile. `log` is where standard error goes in the background.
///
/// The backing directory's lock is the caller's, to be held until the process ends. The caller is
/// to end the process when this returns: an abandoned session may still be running.
///
/// # Errors
/// When the service failed; the mount is gone and everything that could be written is.
pub fn serve(
    mounted: Mounted,
    mut start: Start,
    log: Option<std::fs::File>,
    signals: Signals,
    session: impl FnOnce() -> io::Result<()> + Send + 'static,
    service: &impl Service,
) -> Result<Ended, ServeError> {
    let (sender, events) = mpsc::channel();
    let from_session = sender.clone();
    let _listening = signals
        .listen(move |request| {
            // The receiver is gone only when the service has ended.
            let _ = sender.send(Event::Request(request));
        })
        .map_err(ServeError::Begin)?;
    std::thread::Builder::new()
        .name("kidafs-session".to_owned())
        .spawn(move || {
            // A panic there must end the service, not leave it waiting.
            let result = catch_unwind(AssertUnwindSafe(session))
                .unwrap_or_else(|_| Err(io::Error::other("the session panicked")));
            let _ = from_session.send(Event::SessionEnded(result));
        })
        .map_err(ServeError::Begin)?;
    let result = match start.ready(log) {
        Ok(()) => {
            log::info!(target: super::EVENTS, "{} is served", mounted.path().display());
            until_end(&mounted, &mut start, &events, service)
        }
        Err(error) => {
            let _ = end(&mounted, &mut start, &events, service);
            Err(ServeError::StarterGone(error))
        }
    };
    let ended = mounted.path().to_owned();
    // As a rule it is unmounted by now; what is left of it, dead, would be in the engine's way.
    drop(mounted);
    let flushed = service.flush().map_err(ServeError::Flush);
    log::info!(target: super::EVENTS, "{} is served no more", ended.display());
    // The first failure is the one that is told; the other one is logged.
    match (result, flushed) {
        (Ok(ended), flushed) => flushed.map(|()| ended),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(second)) => {
            log::error!("{second}");
            Err(error)
        }
    }
}

fn until_end(
    mounted: &Mounted,
    start: &mut Start,
    events: &Receiver<Event>,
    service: &impl Service,
) -> Result<Ended, ServeError> {
    loop {
        match events.recv() {
            Ok(Event::Request(Request::Sweep)) => service.sweep(),
            Ok(Event::Request(Request::Reopened)) => {}
            Ok(Event::Request(Request::End)) => return end(mounted, start, events, service),
            Ok(Event::SessionEnded(Ok(()))) => {
                start.stopping();
                return Ok(Ended::Cleanly);
            }
            // Nobody wanted that end: a supervisor is to start anew.
            Ok(Event::SessionEnded(Err(error))) => return Err(ServeError::Session(error)),
            // Both threads gone without a word; neither can do that.
            Err(mpsc::RecvError) => {
                return Err(ServeError::Session(io::Error::other(
                    "the session vanished",
                )));
            }
        }
    }
}

/// Unmounts and waits for the session to end, within bounds.
fn end(
    mounted: &Mounted,
    start: &mut Start,
    events: &Receiver<Event>,
    service: &impl Service,
) -> Result<Ended, ServeError> {
    start.stopping();
    let busy = match mounted.unmount() {
        Ok(()) => false,
        // Unmounted by somebody, or detached by somebody while files are open.
        Err(UnmountError::NotMounted { .. }) => true,
        Err(problem) => {
            log::info!("{problem}");
            if let Err(problem) = mounted.detach() {
                log::warn!("{problem}");
            }
            true
        }
    };
    // A second signal is impatience with open files. Where there are none it is an echo: a death
    // signal is sent for each thread of the starter, a terminal's to each of a group.
    if let Some(result) = session_end(events, service, BUSY_LIMIT, busy) {
        return result.map(|()| Ended::Cleanly).map_err(ServeError::Session);
    }
    log::warn!(
        "files are still open in {}; they fail from now on",
        mounted.path().display()
    );
    if let Err(error) = abort(mounted.connection()) {
        // The kernel does it as well when the process ends and its descriptor is closed.
        log::debug!("cannot abort the connection: {error}");
        return Ok(Ended::Aborted);
    }
    // It fails with ECONNABORTED; that is what was asked for.
    let _ = session_end(events, service, ABORT_LIMIT, false);
    Ok(Ended::Aborted)
}

/// Waits for the session to end; `None` if it has not within `limit`, or by a second signal if
/// that counts.
fn session_end(
    events: &Receiver<Event>,
    service: &impl Service,
    limit: Duration,
    signal_counts: bool,
) -> Option<io::Result<()>> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match events.recv_timeout(left) {
            Ok(Event::SessionEnded(result)) => return Some(result),
            Ok(Event::Request(Request::Sweep)) => service.sweep(),
            Ok(Event::Request(Request::Reopened)) => {}
            Ok(Event::Request(Request::End)) if signal_counts => return None,
            Ok(Event::Request(Request::End)) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Fails every request of the connection, now and later (fuse.rst of the kernel). The file belongs
/// to the user of the mount; it is there only if fusectl is mounted.
fn abort(connection: u32) -> io::Result<()> {
    std::fs::write(format!("/sys/fs/fuse/connections/{connection}/abort"), "1")
}
