//! A process beside a daemon: started once its mount answers, started again when it ends, ended with the supervisor.
//!
//! It has only its own time to lose: whatever becomes of it, the mount is served.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use rustix::process::{Pid, Signal};

/// The wait before it is started again; it doubles with each end that follows soon.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// How long it may take to end, before it is killed: a little longer than it takes for its last push.
const GRACE: Duration = Duration::from_secs(12);

/// What is to run beside a daemon.
#[derive(Debug, Clone)]
pub struct Beside {
    /// This program's arguments.
    pub arguments: Vec<OsString>,
    /// How long whoever waits for the mount also waits for the companion's first word.
    pub wait: Duration,
}

/// A companion that runs.
#[derive(Debug)]
pub(super) struct Companion {
    stop: Sender<()>,
    thread: Option<std::thread::JoinHandle<()>>,
    spoke: Receiver<()>,
}

impl Companion {
    /// Starts it, in a thread that stays with it.
    pub(super) fn start(arguments: Vec<OsString>, log: Option<&File>) -> Self {
        let log = log.and_then(|log| log.try_clone().ok());
        let (stop, stopped) = mpsc::channel();
        let (speaks, spoke) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("kidafs-beside".to_owned())
            .spawn(move || stay(&arguments, log.as_ref(), &stopped, &speaks));
        if let Err(error) = &thread {
            log::error!("nothing is carried to or from the remote: {error}");
        }
        Self {
            stop,
            thread: thread.ok(),
            spoke,
        }
    }

    /// Waits for its first word, or for so long.
    pub(super) fn hear(&self, wait: Duration) {
        // Whether it spoke or not, whoever waits has waited enough.
        let _ = self.spoke.recv_timeout(wait);
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        // The thread may have ended already.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn stay(arguments: &[OsString], log: Option<&File>, stopped: &Receiver<()>, speaks: &Sender<()>) {
    let mut pause = SHORTEST;
    loop {
        let began = std::time::Instant::now();
        match spawn(arguments, log) {
            Ok(child) => {
                if !live(child, stopped, speaks) {
                    return;
                }
            }
            Err(error) => log::error!("cannot start what carries the cache: {error}"),
        }
        if began.elapsed() > LONGEST {
            pause = SHORTEST;
        }
        log::warn!("what carries the cache to and from the remote has ended: starting it again");
        match stopped.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => pause = (pause * 2).min(LONGEST),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn spawn(arguments: &[OsString], log: Option<&File>) -> std::io::Result<Child> {
    let log = log.and_then(|log| log.try_clone().ok());
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    command
        .args(arguments)
        .env_remove(super::role::VARIABLE)
        // It is the daemon that is ready, not its companion.
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // The starter's own is to be closed, so that it does not wait for this process's end.
        .stderr(log.map_or_else(Stdio::null, Stdio::from))
        .spawn()
}

/// Stays with a process to its end; whether it ended by itself.
fn live(mut child: Child, stopped: &Receiver<()>, speaks: &Sender<()>) -> bool {
    let (ends, ended) = mpsc::channel();
    if let Some(said) = child.stdout.take() {
        let speaks = speaks.clone();
        let listening = std::thread::Builder::new()
            .name("kidafs-hears".to_owned())
            .spawn(move || {
                for _ in BufReader::new(said).lines().map_while(Result::ok) {
                    let _ = speaks.send(());
                }
                let _ = ends.send(());
            });
        if listening.is_err() {
            let _ = child.kill();
        }
    }
    loop {
        // Its end of the pipe closes with it. Until then it was not waited for, so the id is still its own.
        match stopped.recv_timeout(Duration::from_millis(200)) {
            Err(RecvTimeoutError::Timeout) if ended.try_recv().is_err() => {}
            Err(RecvTimeoutError::Timeout) => {
                let _ = child.wait();
                return true;
            }
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let _ = rustix::process::kill_process(Pid::from_child(&child), Signal::TERM);
    if matches!(ended.recv_timeout(GRACE), Err(RecvTimeoutError::Timeout)) {
        let _ = child.kill();
    }
    let _ = child.wait();
    false
}
