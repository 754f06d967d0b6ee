//! A daemon's time of service, and its clean end.
//!
//! It ends in one of four ways:
//!
//! - somebody else unmounts: the kernel ends the session;
//! - SIGTERM or SIGINT: the daemon unmounts, and the kernel ends the session. That a file is open for
//!   just a moment does not count ([`BUSY_MOMENT`]);
//! - the same while files are open: the mount is detached, so that new look-ups see the backing
//!   directory, and open files are served until they are closed, for [`BUSY_LIMIT`] at most; then,
//!   or at a second signal, the connection is aborted and they fail with ENOTCONN;
//! - the session fails: the mount, now dead, is detached, and the backing directory seen.
//!
//! In each of them what takes long stops at once, and everything accepted is written before the process ends.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::elsewhere;
use super::mount::Mounted;
use super::signals::{Listening, Request, Signals};
use super::start::Start;
use super::unmount::UnmountError;
use crate::stop::Stop;

/// How long open files keep a daemon that was told to end. Shorter than the ten seconds that
/// `docker stop` waits.
pub const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// How long a daemon that was told to end tries to unmount while files are open: nearly all are for less.
pub const BUSY_MOMENT: Duration = Duration::from_millis(300);

/// How often it tries meanwhile: no event tells that the last file was closed.
const BUSY_STEP: Duration = Duration::from_millis(10);

/// How long the session may take to end once nothing is mounted here any more. If it has not by then, it is
/// looked for what keeps it.
const END_MOMENT: Duration = Duration::from_millis(500);

/// How long an aborted session may take to notice.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

/// What is served, as far as a process's life is concerned.
pub trait Service {
    /// Runs the evictor soon; returns at once. Called on SIGUSR1.
    fn sweep(&self);

    /// Ends what runs beside the session, and returns when it has ended: nothing is removed any more. Called
    /// once, as soon as nothing is mounted any more.
    fn stop(&self) {}

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
#[derive(Debug)]
enum Event {
    Request(Request),
    SessionEnded(io::Result<()>),
}

/// What happens to a daemon, in its order, from the moment on at which signals are listened to.
#[derive(Debug)]
pub struct Events {
    sender: mpsc::Sender<Event>,
    receiver: Receiver<Event>,
    _listening: Listening,
}

impl Events {
    /// Begins to listen to signals. One that asks for the end begins `stop` at once, also before
    /// [`serve`] is called: whatever is done until then is to look at that.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn listen(signals: Signals, stop: Stop) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let from_signals = sender.clone();
        let listening = signals.listen(move |request| {
            if request == Request::End {
                stop.begin();
            }
            // The receiver is gone only when the service has ended.
            let _ = from_signals.send(Event::Request(request));
        })?;
        Ok(Self {
            sender,
            receiver,
            _listening: listening,
        })
    }
}

/// The end, before anything was served: it was asked for while the daemon was getting ready.
pub fn end_before_it_began(mounted: Mounted, start: &mut Start) -> Ended {
    start.stopping();
    drop(mounted);
    Ended::Cleanly
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
    events: Events,
    session: impl FnOnce() -> io::Result<()> + Send + 'static,
    service: &impl Service,
) -> Result<Ended, ServeError> {
    let from_session = events.sender.clone();
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
            until_end(&mounted, &mut start, &events.receiver, service)
        }
        Err(error) => {
            let _ = end(&mounted, &mut start, &events.receiver, service);
            Err(ServeError::StarterGone(error))
        }
    };
    let ended = mounted.path().to_owned();
    // As a rule it is unmounted by now; what is left of it, dead, would be in the engine's way.
    drop(mounted);
    service.stop();
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
    let (gone_before, in_use) = match unmount_soon(mounted) {
        Ok(()) => (false, false),
        // Unmounted by somebody, or detached by somebody while files are open.
        Err(UnmountError::NotMounted { .. }) => (true, false),
        Err(problem) => {
            log::info!("{problem}");
            if let Err(problem) = mounted.detach() {
                log::warn!("{problem}");
            }
            (false, true)
        }
    };
    // A second signal is impatience with open files. Where there are none it is an echo: a death
    // signal is sent for each thread of the starter, a terminal's to each of a group.
    let signal_counts = gone_before || in_use;
    let mut waited = await_end(events, service, END_MOMENT, signal_counts);
    let mut place = None;
    if matches!(waited, Waited::InVain) {
        place = elsewhere::find(|mount| mounted.is_same(mount));
        // A copy elsewhere goes by itself as seldom as its namespace does: it is not waited for, but files are.
        if in_use || place.is_none() {
            waited = await_end(events, service, BUSY_LIMIT - END_MOMENT, signal_counts);
        }
    }
    if let Waited::Ended(result) = waited {
        return result.map(|()| Ended::Cleanly).map_err(ServeError::Session);
    }
    match place {
        Some(place) => log::warn!(
            "{} is unmounted, but lives on elsewhere, where it fails from now on; {place}",
            mounted.path().display()
        ),
        None => log::warn!(
            "files are still open in {}; they fail from now on",
            mounted.path().display()
        ),
    }
    if let Err(error) = abort(mounted.connection()) {
        // The kernel does it as well when the process ends and its descriptor is closed.
        log::debug!("cannot abort the connection: {error}");
        return Ok(Ended::Aborted);
    }
    // It fails with ECONNABORTED; that is what was asked for.
    let _ = await_end(events, service, ABORT_LIMIT, false);
    Ok(Ended::Aborted)
}

/// Unmounts; while it is in use, for a moment only.
fn unmount_soon(mounted: &Mounted) -> Result<(), UnmountError> {
    let deadline = Instant::now() + BUSY_MOMENT;
    loop {
        match mounted.unmount() {
            Err(UnmountError::Busy { .. }) if Instant::now() < deadline => {
                std::thread::sleep(BUSY_STEP);
            }
            result => return result,
        }
    }
}

/// What came of waiting for the session's end.
enum Waited {
    Ended(io::Result<()>),
    /// A second signal came first.
    Impatience,
    /// It goes on.
    InVain,
}

/// Waits for the session to end, within `limit`, or until a second signal comes if that counts.
fn await_end(
    events: &Receiver<Event>,
    service: &impl Service,
    limit: Duration,
    signal_counts: bool,
) -> Waited {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match events.recv_timeout(left) {
            Ok(Event::SessionEnded(result)) => return Waited::Ended(result),
            Ok(Event::Request(Request::Sweep)) => service.sweep(),
            Ok(Event::Request(Request::Reopened)) => {}
            Ok(Event::Request(Request::End)) if signal_counts => return Waited::Impatience,
            Ok(Event::Request(Request::End)) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Waited::InVain;
            }
        }
    }
}

/// Fails every request of the connection, now and later (fuse.rst of the kernel). The file belongs
/// to the user of the mount; it is there only if fusectl is mounted.
fn abort(connection: u32) -> io::Result<()> {
    std::fs::write(format!("/sys/fs/fuse/connections/{connection}/abort"), "1")
}
