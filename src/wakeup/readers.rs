//! Which threads read requests: as many as are wanted, and others in the place of those that are held up.
//!
//! The pattern is leader and followers. A thread that reads in vain costs the client's CPU a wake-up for each
//! request, so of the session's threads all but as many as are wanted are parked. A thread that is to do what may
//! have to wait (for the disk, for a lock that is held over the disk, for another request) does it on an *errand*:
//! as a rule that takes microseconds and costs nothing more; if it takes longer than [`HELD_UP`], a parked
//! thread is promoted to read in its place. Without a parked thread there is no errand: what may have to wait is
//! then another thread's, not a reader's.
//!
//! The kernel tells only the threads that read that the mount has ended. So a thread is parked only while
//! others that have registered read, and whoever leaves lets all others go. All interleavings of that are
//! tried in this file's tests, by a model checker.

use std::cell::OnceCell;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[cfg(not(test))]
use std::sync::{Condvar, Mutex, MutexGuard};

// In the unit tests each step of these is the model checker's to order.
#[cfg(test)]
use loom::sync::{Condvar, Mutex, MutexGuard};

/// How long a reader may be held up before another takes its place. What has not to wait takes some 10
/// microseconds; to look more often would disturb bursts.
const HELD_UP: Duration = Duration::from_millis(2);

/// The watch sleeps until it is called once it has looked so often without seeing an errand.
const LOOKS: u32 = 10;

/// Threads that are parked while nobody is held up.
const SPARE: usize = 3;

/// The session's threads.
#[derive(Debug)]
pub struct Readers {
    wanted: usize,
    spare: usize,
    state: Mutex<State>,
    /// Wakes a parked thread.
    promoted: Condvar,
    /// Wakes the watch.
    watch: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Registered threads that read, or answer what they have read, in whose place nobody reads.
    reading: usize,
    parked: usize,
    /// Threads that are about to leave the car park, and count as reading already.
    promoted: usize,
    errands: Vec<Errand>,
    /// The number of the next errand.
    next: u64,
    /// Whether the watch sleeps until it is called.
    watch_sleeps: bool,
    /// The session ends: nobody is parked any more.
    ended: bool,
}

#[derive(Debug)]
struct Errand {
    number: u64,
    since: Instant,
    /// Whether another thread reads in this one's place.
    replaced: bool,
}

/// A thread that has registered. When it leaves, it lets all others go.
#[derive(Debug)]
struct Registered(Arc<Readers>);

thread_local! {
    static OWN: OnceCell<Registered> = const { OnceCell::new() };
}

/// While it lives, this thread may have to wait: another one reads in its place if that takes long.
#[derive(Debug)]
pub(crate) struct OnErrand<'a> {
    readers: &'a Readers,
    number: u64,
}

impl Readers {
    /// For a session in which `wanted` threads are to read at a time.
    pub fn new(wanted: usize) -> Self {
        Self::with_spare(wanted, SPARE)
    }

    fn with_spare(wanted: usize, spare: usize) -> Self {
        Self {
            wanted,
            spare,
            state: Mutex::new(State::default()),
            promoted: Condvar::new(),
            watch: Condvar::new(),
        }
    }

    /// How many threads the session is to have.
    pub fn threads(&self) -> usize {
        self.wanted + self.spare
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under this lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called by each of the session's threads between a request and the next read. The first call registers
    /// the thread; each one parks it if enough others that have registered read.
    pub(crate) fn before_reading(self: &Arc<Self>) {
        OWN.with(|own| own.get_or_init(|| Registered::new(self)).before_reading());
    }

    /// Begins what may have to wait, until the returned value is dropped. `None`: nobody is parked who could
    /// read meanwhile, so it is not to be done on this thread.
    pub(crate) fn errand(&self) -> Option<OnErrand<'_>> {
        let mut state = self.lock();
        if state.parked == 0 {
            return None;
        }
        let number = state.next;
        state.next += 1;
        state.errands.push(Errand {
            number,
            since: Instant::now(),
            replaced: false,
        });
        if std::mem::take(&mut state.watch_sleeps) {
            self.watch.notify_one();
        }
        Some(OnErrand {
            readers: self,
            number,
        })
    }

    /// Promotes a parked thread for each errand that `is_held_up`, while there are any.
    fn promote(&self, state: &mut State, is_held_up: impl Fn(&Errand) -> bool) {
        for at in 0..state.errands.len() {
            if state.parked > 0 && !state.errands[at].replaced && is_held_up(&state.errands[at]) {
                state.errands[at].replaced = true;
                // The one on the errand does not read, and the promoted one does: as many read as before.
                state.parked -= 1;
                state.promoted += 1;
                self.promoted.notify_one();
            }
        }
    }

    /// Starts the thread that watches errands, until the session ends.
    ///
    /// # Errors
    /// That of the system, if it has no room for a thread.
    pub fn start(self: &Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        let readers = Arc::clone(self);
        let thread = std::thread::Builder::new().name("kidafs-watch".to_owned());
        thread.spawn(move || readers.run_watch())
    }

    fn run_watch(&self) {
        let mut state = self.lock();
        let mut idle = 0;
        while !state.ended {
            let now = Instant::now();
            self.promote(&mut state, |errand| {
                now.duration_since(errand.since) >= HELD_UP
            });
            let unreplaced = state.errands.iter().filter(|errand| !errand.replaced);
            let oldest = unreplaced.map(|errand| errand.since).min();
            idle = if oldest.is_some() { 0 } else { idle + 1 };
            if idle > LOOKS {
                idle = 0;
                state.watch_sleeps = true;
                let woken = self.watch.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            // An errand without anybody to promote for it is looked at again, since one may be parked meanwhile.
            let due = oldest.map_or(HELD_UP, |since| HELD_UP.saturating_sub(now - since));
            let due = if due.is_zero() { HELD_UP } else { due };
            let woken = self.watch.wait_timeout(state, due);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets everybody go, for good.
    pub fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        self.promoted.notify_all();
        self.watch.notify_all();
    }
}

impl Registered {
    fn new(readers: &Arc<Readers>) -> Self {
        readers.lock().reading += 1;
        Self(Arc::clone(readers))
    }

    fn before_reading(&self) {
        let mut state = self.0.lock();
        if state.ended || state.reading <= self.0.wanted {
            return;
        }
        state.reading -= 1;
        state.parked += 1;
        while state.promoted == 0 && !state.ended {
            let woken = self.0.promoted.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        // After the end nothing is counted any more.
        state.promoted = state.promoted.saturating_sub(1);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Drop for OnErrand<'_> {
    fn drop(&mut self) {
        let mut state = self.readers.lock();
        let ended = state.errands.iter();
        let Some(at) = ended
            .map(|errand| errand.number)
            .position(|number| number == self.number)
        else {
            return;
        };
        if state.errands.swap_remove(at).replaced {
            // It reads beside the one that took its place, until one of them finds that one too many reads.
            state.reading += 1;
        }
    }
}

#[cfg(test)]
#[path = "readers_tests.rs"]
mod tests;
