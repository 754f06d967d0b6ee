//! Starting a daemon in the background, and becoming one.
//!
//! There is no fork: a process with threads cannot do it safely. The program runs itself once more
//! with the same arguments; a variable of the environment tells that second process what it is, and
//! it reports over a pipe, its standard output, when its mount answers.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, Signal};
use sd_notify::NotifyState;

/// Tells a process that it is the daemon of another; its value is the [`Role`].
const ROLE: &str = "_KIDAFS_ROLE";

/// The line the daemon writes to its starter when its mount answers.
const READY: &str = "ready";

/// What this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Started by a user or a service manager: it may serve, or start a daemon.
    Command,
    /// The daemon of `kidafs mount`, which outlives its starter.
    Background,
    /// The daemon of `kidafs run`, which ends when its starter does, however that ends.
    Attached,
}

impl Role {
    /// This process's role, from its environment.
    pub fn of_this_process() -> Self {
        match std::env::var_os(ROLE).as_deref().and_then(OsStr::to_str) {
            Some("background") => Self::Background,
            Some("attached") => Self::Attached,
            _ => Self::Command,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Command => "",
            Self::Background => "background",
            Self::Attached => "attached",
        }
    }
}

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It ended before its mount answered, and has said why on standard error itself.
    #[error("the daemon did not start")]
    Failed(ExitStatus),
    /// It was killed before its mount answered.
    #[error(
        "the daemon was killed by signal {0} before its mount answered: see `dmesg` if nobody did it"
    )]
    Killed(i32),
    /// It could not be run.
    #[error("cannot start the daemon: {0}")]
    Io(#[from] io::Error),
}

/// A daemon this process started, whose mount answers.
#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it has ended, by whatever cause.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn wait(mut self) -> io::Result<ExitStatus> {
        self.0.wait()
    }

    /// Has it end cleanly, as SIGTERM does, and waits for that.
    ///
    /// # Errors
    /// When it cannot be signalled or waited for.
    pub fn end(mut self) -> io::Result<ExitStatus> {
        // Not reaped yet, so the id is still its own.
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), Signal::TERM)?;
        self.0.wait()
    }
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
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    let mut child = command
        .args(arguments)
        .env(ROLE, role.name())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            if line? == READY {
                return Ok(Daemon(child));
            }
        }
    }
    let status = child.wait()?;
    match std::os::unix::process::ExitStatusExt::signal(&status) {
        Some(signal) => Err(StartError::Killed(signal)),
        None => Err(StartError::Failed(status)),
    }
}

/// The daemon's end of a start.
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
    /// that arrive have had their caller's umask applied by the kernel, and raises the limit of
    /// open files as far as it may.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn begin() -> io::Result<Self> {
        let role = Role::of_this_process();
        if role == Role::Attached {
            // The kernel's promise, so it also holds if the starter is killed.
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        }
        let starter = if role == Role::Command {
            None
        } else {
            rustix::process::setsid()?;
            // Run by way of /proc/self/exe, the process would be listed as `exe`.
            std::fs::write("/proc/self/comm", "kidafs")?;
            Some(File::from(rustix::io::dup(rustix::stdio::stdout())?))
        };
        rustix::process::chdir("/")?;
        rustix::process::umask(Mode::empty());
        raise_descriptor_limit();
        Ok(Self { role, starter })
    }

    /// What this process is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Reports that the mount answers: to the starter, and to the service manager if there is one.
    /// In the background, standard input and output are closed (to `/dev/null`) and standard error
    /// goes to `log`, or is closed too.
    ///
    /// # Errors
    /// When the starter is gone: it was interrupted, and nobody wants the mount any more.
    pub fn ready(mut self, log: Option<File>) -> io::Result<()> {
        if let Some(mut starter) = self.starter.take() {
            let nothing = File::options().read(true).write(true).open("/dev/null")?;
            rustix::stdio::dup2_stdin(&nothing)?;
            rustix::stdio::dup2_stdout(&nothing)?;
            rustix::stdio::dup2_stderr(log.as_ref().unwrap_or(&nothing))?;
            writeln!(starter, "{READY}")?;
        }
        match self.role {
            Role::Command => tell_manager(&[NotifyState::Ready]),
            Role::Background => {
                tell_manager(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready])
            }
            // The service is the command that `kidafs run` runs; it has its own word to say.
            Role::Attached => {}
        }
        Ok(())
    }
}

/// Tells the service manager that the end has begun.
pub(super) fn stopping() {
    if Role::of_this_process() != Role::Attached {
        tell_manager(&[NotifyState::Stopping]);
    }
}

fn tell_manager(states: &[NotifyState<'_>]) {
    // Without NOTIFY_SOCKET it does nothing. The manager notices by itself if it was not told.
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot tell the service manager: {error}");
    }
}

/// Raises the limit of open files to what the user may have at most: the daemon holds one for each
/// file it is writing.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        log::warn!("cannot raise the limit of open files: {error}");
    }
}
