//! Bursts: while requests keep coming, CPUs are kept from falling asleep.
//!
//! Most of what a message costs is waking up: the reader's CPU when the request comes, the client's
//! when the reply does. Both are avoided for as long as a burst lasts, and only then: a PM QoS request for no wake-up
//! latency is held, which keeps all CPUs awake (Linux, Documentation/power/pm_qos_interface.rst). Where that may
//! not be, the reader polls for the next request instead of sleeping. Not both: on CPUs that are awake a reader
//! that sleeps is served at once, by the scheduler mostly on the client's own CPU, where one that polls is in its way.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity};

/// The device by which a process asks for a bound on the CPUs' wake-up latency, for as long as it has it open.
const LATENCY_DEVICE: &str = "/dev/cpu_dma_latency";

/// A burst is over this long after its last request.
const BURST_END: Duration = Duration::from_millis(5);

/// The latency request may be held for this long at a stretch, and for one part in [`HOLD_SHARE`] of all time
/// in the long run.
const HOLD_STRETCH: Duration = Duration::from_secs(30);
const HOLD_SHARE: u32 = 4;

/// A yield that takes longer has let somebody else run, most likely the client: the scheduler likes to wake the
/// reader on the client's own CPU, where polling would keep both waiting for each other.
const CROWDED: Duration = Duration::from_micros(5);

/// Whoever is not alone again so soon after it has moved to another CPU polls no more for a while: none is idle,
/// and polling would starve others.
const MOVED: Duration = Duration::from_millis(2);

/// After that many rounds without polling, because the machine was busy, it is tried again.
const BACK_OFF: u64 = 8;

/// Keeps CPUs awake in bursts.
#[derive(Debug)]
pub struct Bursts {
    device: OwnedFd,
    poll: Duration,
    started: Instant,
    /// Whether a latency request is held.
    holding: AtomicBool,
    /// One thread polls at a time.
    polling: AtomicBool,
    /// Requests still to come before polling is tried again.
    backing_off: AtomicU64,
    /// Nanoseconds since `started`; 0: the next request begins a burst.
    last_request: AtomicU64,
    /// When the polling thread last moved to another CPU, in nanoseconds since `started`.
    moved: AtomicU64,
    polled: AtomicU64,
    held: AtomicU64,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug)]
struct State {
    /// Whether the request may be made at all: the option, and the right to open the device.
    latency: bool,
    request: Option<(File, Instant)>,
    /// What may still be held, and since when that has been growing.
    allowance: Duration,
    counted: Instant,
    stopped: bool,
}

impl State {
    fn refill(&mut self, now: Instant) {
        let grown = now.duration_since(self.counted) / HOLD_SHARE;
        self.allowance = (self.allowance + grown).min(HOLD_STRETCH);
        self.counted = now;
    }
}

impl Bursts {
    /// Holds the latency request in bursts if `latency`; where it is not held, polls `device` (a duplicate of the
    /// kernel's descriptor) for `poll` after each request.
    pub fn new(device: OwnedFd, poll: Duration, latency: bool) -> Self {
        let now = Instant::now();
        Self {
            device,
            poll,
            started: now,
            holding: AtomicBool::new(false),
            polling: AtomicBool::new(false),
            backing_off: AtomicU64::new(0),
            last_request: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            polled: AtomicU64::new(0),
            held: AtomicU64::new(0),
            state: Mutex::new(State {
                latency,
                request: None,
                allowance: HOLD_STRETCH,
                counted: now,
                stopped: false,
            }),
            wake: Condvar::new(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Seconds spent polling.
    pub fn polled_seconds(&self) -> f64 {
        Duration::from_nanos(self.polled.load(Ordering::Relaxed)).as_secs_f64()
    }

    /// Seconds for which the latency request was held; the present burst is counted when it ends.
    pub fn held_seconds(&self) -> f64 {
        Duration::from_nanos(self.held.load(Ordering::Relaxed)).as_secs_f64()
    }

    /// Called by the thread that read a request, once it has replied or left the reply to the pool: begins a burst,
    /// or waits for the next request without sleeping, for a moment.
    pub fn after_request(&self) {
        let now = self.now();
        let last = self.last_request.swap(now, Ordering::Relaxed);
        if last == 0 || Duration::from_nanos(now.saturating_sub(last)) > BURST_END {
            self.begin();
        }
        if self.holding.load(Ordering::Relaxed)
            || self.poll.is_zero()
            || self.polling.swap(true, Ordering::Acquire)
        {
            return;
        }
        if self.backing_off.load(Ordering::Relaxed) > 0 {
            self.backing_off.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.poll_device();
        }
        self.polling.store(false, Ordering::Release);
    }

    fn poll_device(&self) {
        let began = Instant::now();
        let mut now = began;
        while !self.is_readable() && now.duration_since(began) < self.poll {
            let before = Instant::now();
            rustix::thread::sched_yield();
            now = Instant::now();
            if now.duration_since(before) > CROWDED && !self.find_room() {
                self.backing_off.store(BACK_OFF, Ordering::Relaxed);
                break;
            }
        }
        let spent = u64::try_from(began.elapsed().as_nanos()).unwrap_or(0);
        self.polled.fetch_add(spent, Ordering::Relaxed);
    }

    /// Whether a request waits to be read.
    fn is_readable(&self) -> bool {
        let mut fds = [PollFd::new(&self.device, PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // What is wrong with the connection is for the reader to find.
        !matches!(poll(&mut fds, Some(&at_once)), Ok(0))
    }

    /// Moves this thread to another CPU, for it is not alone on this one. False: it has just been moved, or
    /// may not, and is not to poll.
    fn find_room(&self) -> bool {
        let now = self.now();
        let since = now.saturating_sub(self.moved.swap(now, Ordering::Relaxed));
        if Duration::from_nanos(since) < MOVED {
            return false;
        }
        let Ok(allowed) = sched_getaffinity(None) else {
            return false;
        };
        let mut others = allowed;
        others.unset(sched_getcpu());
        // Moved by the first call, it stays there when the second lets it go anywhere again.
        others.count() > 0
            && sched_setaffinity(None, &others).is_ok()
            && sched_setaffinity(None, &allowed).is_ok()
    }

    /// The first request after a pause.
    fn begin(&self) {
        let mut state = self.state.lock();
        if !state.latency || state.request.is_some() {
            return;
        }
        let now = Instant::now();
        state.refill(now);
        if state.allowance < BURST_END {
            // The next request asks again: a burst need not pause for that.
            self.last_request.store(0, Ordering::Relaxed);
            return;
        }
        match ask_for_no_latency() {
            Ok(request) => {
                state.request = Some((request, now));
                self.holding.store(true, Ordering::Relaxed);
                self.wake.notify_all();
            }
            Err(error) => {
                log::debug!("no CPU-latency request: {LATENCY_DEVICE}: {error}");
                state.latency = false;
            }
        }
    }

    /// Gives the latency request back when its burst is over, until [`Bursts::stop`]. A thread of its own,
    /// which sleeps while there is no burst.
    fn watch(&self) {
        let mut state = self.state.lock();
        while !state.stopped {
            let Some((_, since)) = &state.request else {
                self.wake.wait(&mut state);
                continue;
            };
            let since = *since;
            let now = Instant::now();
            let idle = self
                .now()
                .saturating_sub(self.last_request.load(Ordering::Relaxed));
            let over = Duration::from_nanos(idle) > BURST_END;
            if over || now.duration_since(since) >= state.allowance {
                self.give_back(&mut state, now);
                // What goes on beyond the allowance begins anew once there is some again.
                self.last_request.store(0, Ordering::Relaxed);
            } else {
                self.wake.wait_for(&mut state, BURST_END);
            }
        }
        self.give_back(&mut state, Instant::now());
    }

    fn give_back(&self, state: &mut State, now: Instant) {
        // Closing the file ends the request.
        if let Some((_, since)) = state.request.take() {
            self.holding.store(false, Ordering::Relaxed);
            let held = now.duration_since(since);
            self.held.fetch_add(
                u64::try_from(held.as_nanos()).unwrap_or(0),
                Ordering::Relaxed,
            );
            state.allowance = state.allowance.saturating_sub(held);
            state.counted = now;
        }
    }

    /// Starts the thread that ends bursts.
    ///
    /// # Errors
    /// That of the system, if it has no room for a thread.
    pub fn start(self: &Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        let bursts = Arc::clone(self);
        let thread = std::thread::Builder::new().name("kidafs-burst".to_owned());
        thread.spawn(move || bursts.watch())
    }

    /// Ends that thread, and holds nothing any more.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        state.latency = false;
        self.wake.notify_all();
    }
}

fn ask_for_no_latency() -> std::io::Result<File> {
    let mut device = File::options().write(true).open(LATENCY_DEVICE)?;
    device.write_all(&0i32.to_ne_bytes())?;
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(allowance: Duration, now: Instant) -> State {
        State {
            latency: true,
            request: None,
            allowance,
            counted: now,
            stopped: false,
        }
    }

    #[test]
    fn a_quarter_of_the_time_may_be_held_and_so_long_at_a_stretch() {
        let now = Instant::now();
        let mut used_up = state(Duration::ZERO, now);
        used_up.refill(now + Duration::from_secs(40));
        assert_eq!(used_up.allowance, Duration::from_secs(10));
        used_up.refill(now + Duration::from_secs(3600));
        assert_eq!(used_up.allowance, HOLD_STRETCH);
    }

    #[test]
    fn what_was_held_is_taken_from_the_allowance() {
        let now = Instant::now();
        let (device, _) = rustix::pipe::pipe().unwrap();
        let bursts = Bursts::new(device, Duration::ZERO, true);
        let mut state = state(HOLD_STRETCH, now);
        let file = File::open("/dev/null").unwrap();
        state.request = Some((file, now));
        bursts.give_back(&mut state, now + Duration::from_secs(20));
        assert!(state.request.is_none());
        assert_eq!(state.allowance, HOLD_STRETCH - Duration::from_secs(20));
        assert_eq!(bursts.held_seconds(), 20.0);
    }

    #[test]
    fn what_goes_on_beyond_the_allowance_asks_again_with_each_request() {
        let (device, _end) = rustix::pipe::pipe().unwrap();
        let bursts = Bursts::new(device, Duration::ZERO, true);
        bursts.state.lock().allowance = Duration::ZERO;
        bursts.state.lock().counted = Instant::now();
        bursts.after_request();
        assert_eq!(bursts.last_request.load(Ordering::Relaxed), 0);
        assert!(!bursts.holding.load(Ordering::Relaxed));
    }

    #[test]
    fn polling_ends_with_a_request_and_at_its_limit() {
        let (device, end) = rustix::pipe::pipe().unwrap();
        let poll = Duration::from_millis(20);
        let bursts = Bursts::new(device, poll, false);
        bursts.after_request();
        let nothing_came = bursts.polled_seconds();
        // Sooner if somebody else wants this CPU.
        assert!(nothing_came > 0.0);
        rustix::io::write(&end, b"x").unwrap();
        bursts.backing_off.store(0, Ordering::Relaxed);
        bursts.after_request();
        assert!(bursts.polled_seconds() - nothing_came < poll.as_secs_f64());
    }

    #[test]
    fn whoever_backs_off_does_not_poll_for_some_requests() {
        let (device, _end) = rustix::pipe::pipe().unwrap();
        let bursts = Bursts::new(device, Duration::from_millis(1), false);
        bursts.backing_off.store(BACK_OFF, Ordering::Relaxed);
        for _ in 0..BACK_OFF {
            bursts.after_request();
        }
        assert_eq!(bursts.polled_seconds(), 0.0);
        bursts.after_request();
        assert!(bursts.polled_seconds() > 0.0);
    }
}
