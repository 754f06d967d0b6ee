//! The blocking pool: threads for what may wait for the disk, so that the readers of the device never do.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;

type Job = Box<dyn FnOnce() + Send>;

/// A few threads that run jobs: look-ups and reads that found nothing in memory, renames that flush, and what is
/// pushed into the page cache after those. Jobs that find all threads busy wait for one.
#[derive(Debug)]
pub(crate) struct Pool {
    jobs: Mutex<Option<Sender<Job>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Pool {
    /// Starts `size` threads, named `name`.
    ///
    /// # Errors
    /// That of the system, if it has no room for a thread.
    pub(crate) fn start(name: &str, size: usize) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let threads = (0..size)
            .map(|_| {
                let queue = Arc::clone(&queue);
                std::thread::Builder::new()
                    .name(name.to_owned())
                    .spawn(move || work(&queue))
            })
            .collect::<std::io::Result<_>>()?;
        Ok(Self {
            jobs: Mutex::new(Some(jobs)),
            threads: Mutex::new(threads),
        })
    }

    /// Runs `job` soon; here, if the pool has ended.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let refused = match &*self.jobs.lock() {
            Some(jobs) => jobs.send(Box::new(job)).err().map(|error| error.0),
            None => Some(Box::new(job) as Job),
        };
        if let Some(job) = refused {
            job();
        }
    }

    /// Waits for every job to end.
    pub(crate) fn finish(&self) {
        self.jobs.lock().take();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of the pool panicked");
            }
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        // The lock is given back before the job runs.
        let job = queue.lock().recv();
        match job {
            Ok(job) => job(),
            Err(_) => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_run_side_by_side_and_all_end_before_finish_returns() {
        let pool = Pool::start("test", 2).unwrap();
        let (first, second) = (channel(), channel());
        let (ended, ends) = channel();
        // Each waits for the other: one thread alone would hang.
        let own = ended.clone();
        pool.run(move || {
            first.0.send(()).unwrap();
            second.1.recv().unwrap();
            own.send(1).unwrap();
        });
        pool.run(move || {
            first.1.recv().unwrap();
            second.0.send(()).unwrap();
            ended.send(2).unwrap();
        });
        pool.finish();
        assert_eq!(ends.iter().sum::<i32>(), 3);
        let (late, ran) = channel();
        pool.run(move || late.send(()).unwrap());
        ran.recv().unwrap();
    }
}
