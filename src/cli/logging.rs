//! Where the log goes: standard error; and in the background, unless a file was named for it, the
//! machine's log, the journal or syslog, by the socket that both listen at.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use log::{Level, LevelFilter};

use super::print;
use crate::daemon::EVENTS;
use crate::daemon::start::Role;

/// The variable that says what is logged: `error`, `warn` (the default), `info`, `debug`, `off`, or
/// a filter as env_logger takes it.
const VARIABLE: &str = "KIDAFS_LOG";

/// Where journald and every syslogd listen (systemd.journal-fields(7), syslog(3)).
const SOCKET: &str = "/dev/log";

/// The daemons' facility, `LOG_DAEMON` of syslog(3), shifted as it is in a message's priority.
const FACILITY: u8 = 3 << 3;

/// So many lines are sent to the machine's log within [`PERIOD`].
const MOST_LINES: u32 = 300;
const PERIOD: Duration = Duration::from_secs(60);

/// Begins to log: a daemon's lines with times, a command's as its other messages.
///
/// Of a daemon's life, its mount, its end, what it evicted, something is logged at the default level.
pub(super) fn start() {
    let role = Role::of_this_process();
    let mut logger = env_logger::Builder::new();
    logger.filter_level(LevelFilter::Warn);
    if role != Role::Command || is_foreground() {
        logger.filter_module(EVENTS, LevelFilter::Info);
    }
    if let Ok(filter) = std::env::var(VARIABLE) {
        logger.parse_filters(&filter);
    }
    if role == Role::Command {
        logger.format(|out, record| {
            let text = record.args().to_string();
            writeln!(out, "kidafs: {}", print::clean(&text))
        });
    } else if let Some(machine) = MachineLog::open() {
        logger.format(move |out, record| {
            let text = record.args().to_string();
            let text = print::clean(&text);
            machine.send(record.level(), &text);
            // Until the mount answers the starter sees it; then nobody does.
            writeln!(out, "kidafs: {text}")
        });
    }
    // A program that embeds this one may have its own.
    let _ = logger.try_init();
}

/// Whether this is `kidafs mount --foreground`, whose log is its standard error.
fn is_foreground() -> bool {
    std::env::args_os()
        .skip(1)
        .take_while(|argument| argument != "--")
        .any(|argument| argument == "--foreground" || argument == "-f")
}

/// The machine's log, for a process whose standard error nobody reads.
struct MachineLog {
    socket: UnixDatagram,
    pace: Mutex<Pace>,
}

impl MachineLog {
    /// `None` if this process logs elsewhere, to a file or to a terminal.
    fn open() -> Option<Self> {
        let elsewhere = std::env::args_os()
            .any(|argument| argument.as_encoded_bytes().starts_with(b"--log-file="));
        if elsewhere || Role::of_this_process().is_in_foreground() {
            return None;
        }
        let socket = UnixDatagram::unbound().ok()?;
        // A log that is not read must not hold the mount up.
        socket.set_nonblocking(true).ok()?;
        Some(Self {
            socket,
            pace: Mutex::new(Pace::new(Instant::now())),
        })
    }

    fn send(&self, level: Level, text: &str) {
        let (allowed, missing) = match self.pace.lock() {
            Ok(mut pace) => pace.allows(Instant::now()),
            Err(_) => return,
        };
        if missing > 0 {
            let text = format!("{missing} lines were left out, since there were too many");
            let _ = self.deliver(Level::Warn, &text);
        }
        if allowed {
            // Where nobody listens there is no log, as with every other daemon.
            let _ = self.deliver(level, text);
        }
    }

    fn deliver(&self, level: Level, text: &str) -> io::Result<usize> {
        let severity = match level {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        };
        let priority = FACILITY | severity;
        let message = format!("<{priority}>kidafs[{}]: {text}", std::process::id());
        self.socket.send_to(message.as_bytes(), SOCKET)
    }
}

/// Bounds the number of lines in a period.
struct Pace {
    began: Instant,
    lines: u32,
    left_out: u64,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            lines: 0,
            left_out: 0,
        }
    }

    /// Whether one more line is sent, and how many were not in a period that has just ended.
    fn allows(&mut self, now: Instant) -> (bool, u64) {
        let mut missing = 0;
        if now.saturating_duration_since(self.began) >= PERIOD {
            missing = self.left_out;
            *self = Self::new(now);
        }
        self.lines = self.lines.saturating_add(1);
        let allowed = self.lines <= MOST_LINES;
        self.left_out += u64::from(!allowed);
        (allowed, missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_bounded_and_its_size_told_afterwards() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let sent = (0..1000).filter(|_| pace.allows(start).0).count();
        assert_eq!(sent, MOST_LINES as usize);
        assert_eq!(pace.allows(start + PERIOD), (true, 700));
        assert_eq!(pace.allows(start + PERIOD), (true, 0));
    }
}
