//! Push and pull for as long as a process lives.
//!
//! It runs beside a daemon, or beside nobody, and has only its own time to lose: the cache is read and written as
//! engines do it, and what the remote does or does not do is counted and shown.

use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};

use super::breaker::{Breaker, Standing};
use super::catalogue::Catalogue;
use super::local::Local;
use super::pack::seconds;
use super::pull::{PullError, Puller};
use super::push::{PushError, Pusher};
use super::state::{State, StateFile};
use super::store::{Remote, StoreError};
use super::watch::{Noticed, Watch};
use crate::format::Engines;

/// Commits that follow one another within so long are pushed together.
const QUIET: Duration = Duration::from_secs(1);

/// The longest that a commit waits for further ones.
const LONGEST_BATCH: Duration = Duration::from_secs(10);

/// How long the end waits for what is still to be pushed.
pub const LAST_PUSH: Duration = Duration::from_secs(5);

/// How long a directory that cannot be used is left alone.
const LOCAL_WAIT: Duration = Duration::from_secs(5);

/// How often a state that did not change otherwise is written.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// What a sync does.
#[derive(Debug)]
pub struct Settings {
    /// The cache directory.
    pub dir: PathBuf,
    /// How entries are named.
    pub engines: Engines,
    /// How often the remote is asked for what is new.
    pub interval: Duration,
    /// With which to push; `None`: only pull.
    pub pusher: Option<Pusher>,
    /// Whether to pull.
    pub pulls: bool,
}

/// What happens meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The process is to end.
    End,
    /// The remote is to be asked now.
    Now,
    /// The directory changed.
    Changed,
    /// The directory is not what it was.
    Gone,
}

/// What a sync says to whoever started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The first pull came to its end, well.
    Pulled,
    /// A round came to its end, in whatever way.
    Round,
}

/// A sync that goes on.
pub struct Sync<'a> {
    settings: Settings,
    remote: &'a Remote,
    catalogue: Catalogue<'a>,
    puller: Puller,
    breaker: Breaker,
    /// The directory may hold what the remote lacks: since when, and since the last change.
    dirty: Option<(Instant, Instant)>,
    next_pull: Instant,
    /// The directory is not used before.
    local_wait: Option<Instant>,
    state: State,
    file: StateFile,
    written: Option<Instant>,
    watched: bool,
    /// The directory cannot be watched, so that it is looked at with each pull.
    blind: bool,
    sender: Sender<Event>,
    events: Receiver<Event>,
}

impl std::fmt::Debug for Sync<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} with {}", self.settings.dir, self.remote.name())
    }
}

impl<'a> Sync<'a> {
    /// One that has not begun.
    pub fn new(
        settings: Settings,
        remote: &'a Remote,
        catalogue: Catalogue<'a>,
        puller: Puller,
    ) -> Self {
        let (sender, events) = mpsc::channel();
        let now = Instant::now();
        let state = State {
            remote: remote.name().to_owned(),
            namespace: catalogue.namespace().to_string(),
            pid: std::process::id(),
            pushes: settings.pusher.is_some(),
            since: seconds(SystemTime::now()),
            breaker: Standing::Closed.as_str().to_owned(),
            ..State::default()
        };
        Self {
            file: StateFile::of(&settings.dir),
            // What is here already may be missing there.
            dirty: settings.pusher.is_some().then_some((now, now)),
            settings,
            remote,
            catalogue,
            puller,
            breaker: Breaker::default(),
            next_pull: now,
            local_wait: None,
            state,
            written: None,
            watched: false,
            blind: false,
            sender,
            events,
        }
    }

    /// Where events are sent to.
    pub fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// Goes on until it is told to end. `say` hears of the first pull, and of each round.
    pub fn run(mut self, mut say: impl FnMut(Said, &State)) {
        let mut first = true;
        loop {
            self.watch();
            let now = Instant::now();
            if self.is_due(now) {
                self.round(now);
                if first && self.state.first_pull.is_some() {
                    first = false;
                    say(Said::Pulled, &self.state);
                }
                say(Said::Round, &self.state);
                self.tell();
            } else if self.written.is_none_or(|at| now - at >= HEARTBEAT) {
                self.tell();
            }
            match self.events.recv_timeout(self.wait(Instant::now())) {
                Ok(Event::End) => break,
                Ok(Event::Now) => {
                    self.next_pull = Instant::now();
                    self.local_wait = None;
                    self.breaker.succeed();
                }
                Ok(Event::Changed) => self.changed(Instant::now()),
                Ok(Event::Gone) => {
                    self.watched = false;
                    self.changed(Instant::now());
                }
                // This end holds a sender too.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        // Whoever told it to end cancels the remote after `LAST_PUSH`.
        if self.dirty.is_some() && self.breaker.standing(Instant::now()) == Standing::Closed {
            let _ = self.push();
        }
    }

    fn changed(&mut self, now: Instant) {
        if self.settings.pusher.is_some() {
            let since = self.dirty.map_or(now, |(since, _)| since);
            self.dirty = Some((since, now));
            if self.state.behind_since.is_none() {
                self.state.behind_since = Some(seconds(SystemTime::now()));
            }
        }
    }

    /// When the next push is due.
    fn push_at(&self) -> Option<Instant> {
        let (since, last) = self.dirty?;
        Some((last + QUIET).min(since + LONGEST_BATCH))
    }

    /// When there is something to do next, whatever the breaker says.
    fn next(&self) -> Instant {
        let pull = self.settings.pulls.then_some(self.next_pull);
        let next = pull.into_iter().chain(self.push_at()).min();
        let next = next.unwrap_or_else(|| Instant::now() + HEARTBEAT);
        self.local_wait.map_or(next, |wait| wait.max(next))
    }

    fn is_due(&self, now: Instant) -> bool {
        self.next() <= now && self.breaker.until().is_none_or(|until| until <= now)
    }

    fn wait(&self, now: Instant) -> Duration {
        let next = self.next().max(self.breaker.until().unwrap_or(now));
        let heartbeat = self.written.map_or(now, |at| at + HEARTBEAT);
        next.min(heartbeat).saturating_duration_since(now)
    }

    /// One round: what is due, of pull and push.
    fn round(&mut self, now: Instant) {
        if self.breaker.standing(now) == Standing::HalfOpen {
            self.state.breaker = Standing::HalfOpen.as_str().to_owned();
            self.tell();
        }
        let mut result = Ok(());
        if self.settings.pulls && self.next_pull <= now {
            result = self.pull();
            if result.is_ok() {
                self.next_pull = Instant::now() + self.settings.interval;
            }
        }
        if result.is_ok() && self.push_at().is_some_and(|at| at <= Instant::now()) {
            result = self.push();
        }
        let now = Instant::now();
        match result {
            Ok(()) => {
                self.local_wait = None;
                self.breaker.succeed();
                self.state.last_good = Some(seconds(SystemTime::now()));
                self.state.last_error = None;
            }
            Err(Failure::Remote(error)) => self.failed(now, &error),
            Err(Failure::Local(text)) => {
                if self.state.last_error.as_deref() != Some(text.as_str()) {
                    log::warn!("{text}; trying again");
                }
                self.state.local_errors += 1;
                self.state.last_error = Some(text);
                self.local_wait = Some(now + LOCAL_WAIT);
                self.watched = false;
            }
        }
        self.state.breaker = self.breaker.standing(now).as_str().to_owned();
        self.state.breaker_opened = self.breaker.opened();
    }

    fn failed(&mut self, now: Instant, error: &StoreError) {
        if error.is_cancelled() {
            return;
        }
        let text = error.to_string();
        // The same again is told by the counters.
        if self.state.last_error.as_deref() != Some(text.as_str()) {
            log::warn!("{text}; trying again");
        }
        if error.is_timeout() {
            self.state.timeouts += 1;
        } else {
            self.state.errors += 1;
        }
        self.state.last_error = Some(text);
        self.breaker.fail(now);
    }

    fn local(&self) -> Result<Local, Failure> {
        let dir = &self.settings.dir;
        Local::open(dir, self.settings.engines.clone())
            .map_err(|error| Failure::Local(format!("cannot open {}: {error}", dir.display())))
    }

    fn pull(&mut self) -> Result<(), Failure> {
        let local = self.local()?;
        let (pulled, result) = self.puller.pull(&mut self.catalogue, &local);
        self.state.add_pulled(&pulled);
        match result {
            Ok(()) => {
                let now = seconds(SystemTime::now());
                self.state.first_pull.get_or_insert(now);
                if self.blind {
                    self.changed(Instant::now());
                }
                Ok(())
            }
            Err(PullError::Store(error)) => Err(Failure::Remote(error)),
            Err(error @ PullError::Local { .. }) => Err(Failure::Local(error.to_string())),
        }
    }

    fn push(&mut self) -> Result<(), Failure> {
        let local = self.local()?;
        let Some(pusher) = &self.settings.pusher else {
            return Ok(());
        };
        // Before the listing: what comes meanwhile is for the next time.
        let dirty = self.dirty.take();
        let (pushed, result) = pusher.push(&mut self.catalogue, &local, false);
        self.state.add_pushed(&pushed);
        if result.is_err() {
            self.dirty = dirty;
        } else {
            self.state.behind_since = None;
        }
        match result {
            Ok(()) => Ok(()),
            Err(PushError::Store(error)) => Err(Failure::Remote(error)),
            Err(error @ PushError::Local { .. }) => Err(Failure::Local(error.to_string())),
        }
    }

    /// Has the directory watched, if it is to be and can be.
    fn watch(&mut self) {
        if self.watched || self.settings.pusher.is_none() || self.local_wait.is_some() {
            return;
        }
        let Ok(local) = self.local() else { return };
        match Watch::new(&local) {
            Ok(watch) => {
                let sender = self.sender.clone();
                let spawned = std::thread::Builder::new()
                    .name("kidafs-inotify".to_owned())
                    .spawn(move || listen(watch, &sender));
                self.watched = spawned.is_ok();
            }
            Err(error) => {
                log::warn!(
                    "{} cannot be watched ({error}): changes are pushed every {} only",
                    self.settings.dir.display(),
                    humantime::format_duration(self.settings.interval)
                );
                self.watched = true;
                self.blind = true;
            }
        }
    }

    fn tell(&mut self) {
        self.state.requests = self.remote.requests();
        self.written = Some(Instant::now());
        if let Err(error) = self.file.write(&self.state) {
            log::debug!("the state cannot be told: {error}");
        }
    }
}

enum Failure {
    Remote(StoreError),
    Local(String),
}

fn listen(mut watch: Watch, events: &Sender<Event>) {
    loop {
        let event = match watch.wait() {
            Ok(Noticed::Change) => Event::Changed,
            Ok(Noticed::Gone) | Err(_) => Event::Gone,
        };
        if events.send(event).is_err() || event == Event::Gone {
            return;
        }
    }
}
