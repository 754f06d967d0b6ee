//! Which threads read requests: one at a time, and another in its place when that one is held up.
//!
//! A thread that reads in vain costs the client's CPU a wake-up for each request. So of the session's threads
//! all but as many as are wanted stand by. A reader that must do what could wait for another request (storing
//! into the page cache waits for a page that a read has locked) says so; if it takes too long, one that stands
//! by takes over, and answers what is waited for.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How long a reader may be held up before another takes over. A store takes a few microseconds, and hardly any
/// has to wait: to look more often would only disturb bursts.
const HELD_UP: Duration = Duration::from_millis(10);

/// Threads that stand by, to take the place of one that is held up.
const STANDING_BY: usize = 1;

/// The session's threads.
#[derive(Debug)]
pub struct Readers {
    wanted: usize,
    started: Instant,
    /// When the present errand began, in nanoseconds since `started`; 0: none.
    errand: AtomicU64,
    /// Whether the watch sleeps until it is told of an errand.
    dozing: AtomicBool,
    state: Mutex<State>,
    wake: Condvar,
    watch: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Threads that read, or answer what they have read.
    reading: usize,
    /// Threads that stand by.
    standing_by: usize,
    /// Threads that are to take over.
    called: usize,
    /// Whether the thread on an errand has been replaced.
    replaced: bool,
    /// The session ends: nobody is to stand by any more.
    ended: bool,
}

thread_local! {
    /// Lets the others go when this thread leaves: the kernel tells only those that read that it has unmounted.
    static LEAVING: OnceCell<Leaving> = const { OnceCell::new() };
}

struct Leaving(Arc<Readers>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Readers {
    /// For a session in which `wanted` threads are to read at a time.
    pub fn new(wanted: usize) -> Self {
        Self {
            wanted,
            started: Instant::now(),
            errand: AtomicU64::new(0),
            dozing: AtomicBool::new(false),
            state: Mutex::new(State {
                reading: wanted + STANDING_BY,
                ..State::default()
            }),
            wake: Condvar::new(),
            watch: Condvar::new(),
        }
    }

    /// How many threads the session is to have.
    pub fn threads(&self) -> usize {
        self.wanted + STANDING_BY
    }

    /// Called by a session's thread before it reads again: stands by if enough others read.
    pub(crate) fn stand_by(self: &Arc<Self>) {
        LEAVING.with(|leaving| {
            leaving.get_or_init(|| Leaving(Arc::clone(self)));
        });
        let mut state = self.state.lock();
        if state.ended || state.reading <= self.wanted {
            return;
        }
        state.reading -= 1;
        state.standing_by += 1;
        while state.called == 0 && !state.ended {
            self.wake.wait(&mut state);
        }
        state.called = state.called.saturating_sub(1);
        state.standing_by -= 1;
        if state.ended {
            state.reading += 1;
        }
    }

    /// Runs what may wait for another request to be answered. `Err`: nobody stands by who could answer it,
    /// so it must not be run here.
    pub(crate) fn errand<F: FnOnce()>(&self, run: F) -> Result<(), F> {
        {
            let mut state = self.state.lock();
            if state.standing_by <= state.called || self.errand.load(Ordering::Acquire) != 0 {
                return Err(run);
            }
            state.replaced = false;
            let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.errand.store(now.max(1), Ordering::Release);
            if self.dozing.swap(false, Ordering::AcqRel) {
                self.watch.notify_one();
            }
        }
        run();
        let mut state = self.state.lock();
        self.errand.store(0, Ordering::Release);
        if state.replaced {
            state.replaced = false;
            state.reading += 1;
        }
        Ok(())
    }

    /// Starts the thread that calls somebody who stands by when an errand takes too long, until the session ends.
    ///
    /// # Errors
    /// That of the system, if it has no room for a thread.
    pub fn start(self: &Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        let readers = Arc::clone(self);
        let thread = std::thread::Builder::new().name("kidafs-watch".to_owned());
        thread.spawn(move || readers.watch())
    }

    /// Sleeps while there are no errands.
    fn watch(&self) {
        let mut state = self.state.lock();
        let mut idle = 0;
        while !state.ended {
            let errand = self.errand.load(Ordering::Acquire);
            if errand == 0 {
                idle += 1;
                if idle > 10 {
                    self.dozing.store(true, Ordering::Release);
                    self.watch.wait(&mut state);
                    idle = 0;
                    continue;
                }
            } else {
                idle = 0;
                let since = Duration::from_nanos(errand);
                if !state.replaced && self.started.elapsed().saturating_sub(since) > HELD_UP {
                    log::debug!("a reader is held up: another takes over");
                    state.replaced = true;
                    // The one on the errand does not read, and the one that is called does.
                    state.called += 1;
                    self.wake.notify_one();
                }
            }
            self.watch.wait_for(&mut state, HELD_UP);
        }
    }

    /// Lets everybody go.
    pub fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        self.wake.notify_all();
        self.watch.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn wait_for(readers: &Readers, what: impl Fn(&State) -> bool) {
        let end = Instant::now() + SOON;
        while !what(&readers.state.lock()) {
            assert!(Instant::now() < end, "{readers:?}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn one_that_is_held_up_is_replaced_and_stands_by_afterwards() {
        let readers = Arc::new(Readers::new(1));
        let watch = readers.start().unwrap();
        let own = Arc::clone(&readers);
        let (took_over, takes_over) = channel();
        let (leave, leaves) = channel::<()>();
        let second = std::thread::spawn(move || {
            own.stand_by();
            took_over.send(()).unwrap();
            own.stand_by();
            let _ = leaves.recv();
        });
        wait_for(&readers, |state| state.standing_by == 1);
        // The errand ends only once the other has taken over: alone, this would wait for ever.
        let done = readers.errand(move || takes_over.recv_timeout(SOON).unwrap());
        assert!(done.is_ok());
        let own = Arc::clone(&readers);
        let first = std::thread::spawn(move || own.stand_by());
        wait_for(&readers, |state| {
            state.standing_by == 1 && state.reading == 1
        });
        drop(leave);
        for thread in [first, second, watch] {
            thread.join().unwrap();
        }
    }

    #[test]
    fn without_anybody_standing_by_an_errand_is_refused() {
        let readers = Readers::new(1);
        assert!(
            readers
                .errand(|| unreachable!("nobody could help"))
                .is_err()
        );
    }

    #[test]
    fn whoever_leaves_lets_the_others_go() {
        let readers = Arc::new(Readers::new(1));
        let own = Arc::clone(&readers);
        let stands_by = std::thread::spawn(move || own.stand_by());
        wait_for(&readers, |state| state.standing_by == 1);
        let own = Arc::clone(&readers);
        std::thread::spawn(move || own.stand_by()).join().unwrap();
        stands_by.join().unwrap();
    }
}
