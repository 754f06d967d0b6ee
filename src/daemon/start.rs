//! Starting a daemon in the background, and becoming one.
//!
//! There is no fork: a process with threads cannot do it safely. The program runs itself once more
//! with the same arguments; a variable of the environment tells that second process what it is, and
//! it reports over a pipe, its standard output, when its mount answers.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use rustix::fs::Mode;
use rustix::process::{Pid, Signal};
use sd_notify::NotifyState;

use super::{inherited, role};

pub use super::role::{Role, Supervisor};

/// How a daemon's allocator is to behave, where that is glibc's (mallopt(3)); others ignore it.
const ALLOCATOR: [(&str, &str); 3] = [
    // In bytes, what is given back to the system as soon as it is freed. Left to itself it raises that to the size
    // of what it has seen, and so keeps what a sweep over many entries needs for a moment.
    ("MALLOC_MMAP_THRESHOLD_", "262144"),
    // Further arenas ask the system for every few pages more.
    ("MALLOC_ARENA_MAX", "1"),
    // In bytes, how much more than is needed the first one asks for.
    ("MALLOC_TOP_PAD_", "1048576"),
];

/// What a daemon tells its starter: a line each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Its mount answers.
    Ready,
    /// It was told to end, or unmounted, and does not want to be started again. Only a supervisor
    /// still listens by then.
    Ending,
}

impl Word {
    fn line(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Ending => "ending",
        }
    }

    fn of_line(line: &[u8]) -> Option<Self> {
        [Self::Ready, Self::Ending]
            .into_iter()
            .find(|word| word.line().as_bytes() == line)
    }
}

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It ended before its mount answered, and has said why on standard error itself.
    #[error("the daemon did not start")]
    Failed(ExitStatus),
    /// The same, and this is what it said.
    #[error("{0}")]
    Refused(String),
    /// It was told to end, or unmounted, before its mount answered.
    #[error("the daemon was ended before its mount answered, so nothing is served")]
    Ended,
    /// It was killed before its mount answered.
    #[error(
        "the daemon was killed by signal {0} before its mount answered: see `dmesg` if nobody did it"
    )]
    Killed(i32),
    /// It could not be run.
    #[error("cannot start the daemon: {0}")]
    Io(#[from] io::Error),
}

impl StartError {
    /// Why a daemon ended with `status` before its mount answered.
    pub(super) fn of(status: ExitStatus) -> Self {
        match status.signal() {
            Some(signal) => Self::Killed(signal),
            None if status.success() => Self::Ended,
            None => Self::Failed(status),
        }
    }
}

/// A daemon this process started, whose mount answers.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    /// Its end, if somebody else has waited for it.
    ended: Option<ExitStatus>,
}

impl Daemon {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended, by whatever cause.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn wait(mut self) -> io::Result<ExitStatus> {
        self.ended.map_or_else(|| self.child.wait(), Ok)
    }

    /// Notes that the process `pid` was waited for, if that is this one.
    pub(super) fn has_ended(&mut self, pid: Pid, status: ExitStatus) {
        if pid == Pid::from_child(&self.child) {
            self.ended = Some(status);
        }
    }

    /// Has it end cleanly, as SIGTERM does, and waits for that.
    ///
    /// # Errors
    /// When it cannot be signalled or waited for.
    pub fn end(self) -> io::Result<ExitStatus> {
        if self.ended.is_none() {
            // Not reaped yet, so the id is still its own.
            rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        }
        self.wait()
    }
}

/// A daemon that was started and has not been heard to the end.
#[derive(Debug)]
pub(super) struct Started {
    child: Child,
    said: Option<BufReader<ChildStdout>>,
}

impl Started {
    /// Its process, which keeps its id until [`wait`](Self::wait).
    pub(super) fn child(&self) -> &Child {
        &self.child
    }

    /// What it says next; `None` once it can say nothing any more, as a rule because it is dead.
    ///
    /// # Errors
    /// When it cannot be listened to.
    pub(super) fn hear(&mut self) -> io::Result<Option<Word>> {
        let Some(said) = &mut self.said else {
            return Ok(None);
        };
        let mut line = Vec::new();
        loop {
            line.clear();
            if said.read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            if let Some(word) = Word::of_line(line.trim_ascii_end()) {
                return Ok(Some(word));
            }
        }
    }

    /// Waits until it has ended, by whatever cause.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub(super) fn wait(mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

/// Runs this program with `arguments` as a daemon, and does not wait for its mount.
pub(super) fn spawn(
    role: Role,
    arguments: impl IntoIterator<Item = OsString>,
) -> io::Result<Started> {
    spawn_with(role, arguments, Stdio::inherit())
}

fn spawn_with(
    role: Role,
    arguments: impl IntoIterator<Item = OsString>,
    stderr: Stdio,
) -> io::Result<Started> {
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    let given = inherited::environment();
    command.env_clear().envs(&given);
    for (variable, value) in ALLOCATOR {
        if !given.contains_key(OsStr::new(variable)) {
            command.env(variable, value);
        }
    }
    let mut child = command
        .args(arguments)
        .env(role::VARIABLE, role.name())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()?;
    let said = child.stdout.take().map(BufReader::new);
    Ok(Started { child, said })
}

/// Runs this program with `arguments` as a daemon and waits until its mount answers. Until then the
/// daemon's standard error is this process's, so that its complaint is seen; after that it holds
/// none of this process's descriptors.
///
/// A [`Role::Attached`] daemon ends with the thread that calls this, not only with the process.
///
/// # Errors
/// [`StartError::Failed`] if it gave up: nothing has to be added to what it said.
pub fn start(
    role: Role,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Daemon, StartError> {
    let mut started = spawn(role, arguments)?;
    while let Some(word) = started.hear()? {
        if word == Word::Ready {
            return Ok(Daemon {
                child: started.child,
                ended: None,
            });
        }
    }
    Err(StartError::of(started.wait()?))
}

/// As [`start`], but what the daemon complains of, should it not start, is in the error
/// ([`StartError::Refused`]) and not seen.
///
/// # Errors
/// When there is no daemon.
pub fn start_quietly(
    role: Role,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Daemon, StartError> {
    let mut started = spawn_with(role, arguments, Stdio::piped())?;
    let complaints = started
        .child
        .stderr
        .take()
        .map(Complaints::hear)
        .transpose()?;
    while let Some(word) = started.hear()? {
        if word == Word::Ready {
            if let Some(complaints) = complaints {
                complaints.pass_on();
            }
            return Ok(Daemon {
                child: started.child,
                ended: None,
            });
        }
    }
    let said = complaints.map(Complaints::last).unwrap_or_default();
    match StartError::of(started.wait()?) {
        StartError::Failed(_) if !said.is_empty() => Err(StartError::Refused(said)),
        error => Err(error),
    }
}

/// What a daemon writes on its standard error until its mount answers.
struct Complaints {
    lines: Arc<Mutex<Vec<String>>>,
    listening: JoinHandle<()>,
}

impl Complaints {
    fn hear(stderr: ChildStderr) -> io::Result<Self> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&lines);
        let thread = std::thread::Builder::new().name("kidafs-complaints".to_owned());
        let listening = thread.spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                heard.lock().push(line);
            }
        })?;
        Ok(Self { lines, listening })
    }

    /// Says what was heard, of a daemon that serves now: it has closed its end.
    fn pass_on(self) {
        let _ = self.listening.join();
        for line in self.lines.lock().iter() {
            eprintln!("{line}");
        }
    }

    /// Says what was heard of a daemon that is dead, but for the last line, which is why; that one is
    /// returned, without the program's name before it.
    fn last(self) -> String {
        let _ = self.listening.join();
        let mut lines = self.lines.lock();
        let last = lines.pop().unwrap_or_default();
        for line in lines.iter() {
            eprintln!("{line}");
        }
        last.strip_prefix("kidafs: ").unwrap_or(&last).to_owned()
    }
}

/// A daemon's, or a supervisor's, end of a start.
#[derive(Debug)]
pub struct Start {
    role: Role,
    /// The pipe to the starter.
    starter: Option<File>,
}

impl Start {
    /// To be called by a process that is going to serve, before it mounts and once every path it
    /// was given is absolute: it leaves the working directory, so as not to keep it busy. It also
    /// leaves the terminal (unless it is in the foreground), clears the umask, because the modes
    /// that arrive have had their caller's umask applied by the kernel, and raises the limits that
    /// its starter may have had.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn begin() -> io::Result<Self> {
        let start = Self::begin_supervising()?;
        rustix::process::umask(Mode::empty());
        Ok(start)
    }

    /// The same for a process that has another one serve, but it makes no files for others.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn begin_supervising() -> io::Result<Self> {
        let role = Role::of_this_process();
        inherited::unblock_signals()?;
        if role.ends_with_its_starter() {
            // The kernel's promise, so it also holds if the starter is killed.
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        }
        let starter = if role == Role::Command {
            None
        } else {
            rustix::process::setsid()?;
            // Run by way of /proc/self/exe, the process would be listed as `exe`.
            std::fs::write("/proc/self/comm", "kidafs")?;
            // Not to be inherited: the starter is to see its end when this process ends.
            let pipe = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
            Some(File::from(pipe))
        };
        rustix::process::chdir("/")?;
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
        inherited::raise_limits(!role.is_in_foreground());
        Ok(Self { role, starter })
    }

    /// What this process is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Reports that the mount answers: to the starter, and to the service manager if there is one.
    /// Unless this process was started in the foreground, its standard streams are closed (to
    /// `/dev/null`), but for standard error if there is a `log`: it goes there. The daemon of a
    /// supervisor in the foreground keeps its standard error.
    ///
    /// # Errors
    /// When the starter is gone: it was interrupted, and nobody wants the mount any more.
    pub fn ready(&mut self, log: Option<File>) -> io::Result<()> {
        if let Some(starter) = &mut self.starter {
            let nothing = File::options().read(true).write(true).open("/dev/null")?;
            rustix::stdio::dup2_stdin(&nothing)?;
            rustix::stdio::dup2_stdout(&nothing)?;
            if !self.role.is_in_foreground() {
                rustix::stdio::dup2_stderr(log.as_ref().unwrap_or(&nothing))?;
            }
            tell(starter, Word::Ready)?;
            if !self.role.is_supervised() {
                self.starter = None;
            }
        }
        match self.role {
            Role::Command => tell_manager(&[NotifyState::Ready]),
            Role::Background => {
                tell_manager(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
            }
            // The service is the command that `kidafs run` runs; it has its own word to say.
            Role::Attached => {}
            // The supervisor is what the manager knows.
            Role::Supervised(_) => {}
        }
        Ok(())
    }

    /// Tells the supervisor, or the service manager, that the end has begun, and is wanted.
    pub(super) fn stopping(&mut self) {
        match (self.role, &mut self.starter) {
            (Role::Supervised(_), Some(supervisor)) => {
                if let Err(error) = tell(supervisor, Word::Ending) {
                    log::debug!("the supervisor is gone: {error}");
                }
            }
            (Role::Command | Role::Background, _) => tell_manager(&[NotifyState::Stopping]),
            (Role::Attached | Role::Supervised(_), _) => {}
        }
    }
}

/// Writes one line at once, so that it arrives whole or not at all.
fn tell(listener: &mut File, word: Word) -> io::Result<()> {
    listener.write_all(format!("{}\n", word.line()).as_bytes())
}

fn tell_manager(states: &[NotifyState<'_>]) {
    // Without NOTIFY_SOCKET it does nothing. The manager notices by itself if it was not told.
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot tell the service manager: {error}");
    }
}
