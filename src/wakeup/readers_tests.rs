//! The interleavings of a session's threads, under a model checker: [`Readers`] is compiled with its locks.
//!
//! The device is a model too: it gives each request to one thread, and tells only threads that read, or come to
//! read, that it was unmounted. A thread that is never let go is a deadlock, which the checker reports.

use std::sync::Arc;

use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    /// Is answered as soon as it is read.
    Quick,
    /// Waits until another one has been read, as a store into a page waits for the read that has it locked.
    Waits,
}

use Request::{Quick, Waits};

struct Device {
    state: Mutex<DeviceState>,
    changed: Condvar,
}

struct DeviceState {
    /// Those that were not read yet; the last one comes first.
    requests: Vec<Request>,
    reads: usize,
    unmounted: bool,
}

impl Device {
    /// The next request, and how many were read with it.
    fn read(&self) -> Option<(Request, usize)> {
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(request) = state.requests.pop() {
                state.reads += 1;
                self.changed.notify_all();
                return Some((request, state.reads));
            }
            if state.unmounted {
                return None;
            }
            state = self.changed.wait(state).unwrap();
        }
    }

    fn wait_until_another_is_read(&self, reads: usize) {
        let mut state = self.state.lock().unwrap();
        while state.reads == reads {
            state = self.changed.wait(state).unwrap();
        }
    }

    fn unmount(&self) {
        self.state.lock().unwrap().unmounted = true;
        self.changed.notify_all();
    }
}

/// One of the session's threads, as fuser runs them.
fn session_thread(readers: &Arc<Readers>, device: &Device) {
    let mut own: Option<Registered> = None;
    while let Some((request, reads)) = device.read() {
        let errand = (request == Waits).then(|| readers.errand()).flatten();
        // Refused, it is left to a pool; when that answers does not matter here.
        if errand.is_some() {
            device.wait_until_another_is_read(reads);
        }
        drop(errand);
        own.get_or_insert_with(|| Registered::new(readers))
            .before_reading();
    }
}

/// The watch, to which each errand seems too long at once.
fn watch(readers: &Readers) {
    let mut state = readers.lock();
    while !state.ended {
        readers.promote(&mut state, |_| true);
        state.watch_sleeps = true;
        state = readers.watch.wait(state).unwrap();
    }
}

/// A session's whole life, in which the mount may end at any moment.
fn life(wanted: usize, spare: usize, requests: &[Request]) {
    let readers = Arc::new(Readers::with_spare(wanted, spare));
    let device = Arc::new(Device {
        state: Mutex::new(DeviceState {
            requests: requests.iter().rev().copied().collect(),
            reads: 0,
            unmounted: false,
        }),
        changed: Condvar::new(),
    });
    let watched = requests.contains(&Waits).then(|| {
        let readers = Arc::clone(&readers);
        thread::spawn(move || watch(&readers))
    });
    let threads: Vec<_> = (0..readers.threads())
        .map(|_| {
            let (readers, device) = (Arc::clone(&readers), Arc::clone(&device));
            thread::spawn(move || session_thread(&readers, &device))
        })
        .collect();
    device.unmount();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(device.state.lock().unwrap().reads, requests.len());
    // As the daemon does when the session has ended; without a request nobody has registered.
    readers.end();
    if let Some(watch) = watched {
        watch.join().unwrap();
    }
}

/// Tries every interleaving, or every one in which no more than so many threads lose the processor against
/// their will.
fn interleavings(
    preemptions: Option<usize>,
    wanted: usize,
    spare: usize,
    requests: &'static [Request],
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(move || life(wanted, spare, requests));
}

#[test]
fn a_session_ends_after_any_number_of_requests_in_every_interleaving() {
    for requests in [&[][..], &[Quick], &[Quick; 2]] {
        interleavings(None, 1, 1, requests);
    }
    for requests in [&[][..], &[Quick], &[Quick; 2], &[Quick; 3]] {
        interleavings(Some(2), 1, 2, requests);
        interleavings(Some(2), 2, 1, requests);
    }
}

#[test]
fn whoever_is_held_up_is_replaced_and_all_are_let_go() {
    interleavings(Some(2), 1, 1, &[Quick, Quick, Waits, Quick]);
    interleavings(Some(1), 1, 2, &[Quick, Quick, Quick, Waits, Waits, Quick]);
    interleavings(Some(1), 2, 1, &[Quick, Waits, Quick, Waits, Quick]);
}
