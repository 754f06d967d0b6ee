//! What a process that carries a cache tells about itself: `.kidafs/remote.json`.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::pull::Pulled;
use super::push::Pushed;
use super::reject::{Reason, Rejections};
use crate::layout::{PRIVATE_DIR, REMOTE_JSON};

/// How much went one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Packs.
    pub packs: u64,
    /// Entries.
    pub entries: u64,
    /// The entries' bytes.
    pub bytes: u64,
}

/// State and counters of one process. Times are in whole seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The remote, without a password.
    pub remote: String,
    /// The namespace.
    pub namespace: String,
    /// The process.
    pub pid: u32,
    /// Whether it pushes.
    pub pushes: bool,
    /// When it began.
    pub since: u64,
    /// When the first pull came to its end.
    pub first_pull: Option<u64>,
    /// When the remote was last in order.
    pub last_good: Option<u64>,
    /// Since when there is something here that the remote does not have.
    pub behind_since: Option<u64>,
    /// Packs that the remote has.
    pub remote_packs: u64,
    /// What was pushed.
    pub pushed: Carried,
    /// What was pulled.
    pub pulled: Carried,
    /// What was rejected, by reason.
    pub rejected: Rejections,
    /// What the remote did not do, except by time-out.
    pub errors: u64,
    /// What the remote did not do in time.
    pub timeouts: u64,
    /// What the directory did not do.
    pub local_errors: u64,
    /// The last error.
    pub last_error: Option<String>,
    /// `closed`, `open` or `half-open`.
    pub breaker: String,
    /// How often it opened.
    pub breaker_opened: u64,
    /// Requests to the remote.
    pub requests: u64,
}

impl State {
    /// How long something has been waiting to be pushed, in seconds.
    pub fn lag(&self, now: u64) -> u64 {
        self.behind_since
            .map_or(0, |since| now.saturating_sub(since))
    }

    /// Adds what a round of pulling did.
    pub fn add_pulled(&mut self, pulled: &Pulled) {
        self.remote_packs = pulled.packs;
        self.pulled.packs += pulled.packs_fetched;
        self.pulled.entries += pulled.entries;
        self.pulled.bytes += pulled.bytes;
        self.rejected.add(&pulled.rejected);
    }

    /// Adds what a push did.
    pub fn add_pushed(&mut self, pushed: &Pushed) {
        self.pushed.packs += pushed.packs;
        self.pushed.entries += pushed.entries;
        self.pushed.bytes += pushed.bytes;
        self.rejected.add(&pushed.rejected);
    }

    /// The metrics, in Prometheus' text format, at a time in seconds since 1970.
    pub fn metrics(&self, now: u64) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP kidafs_remote_{name} {help}.");
            let _ = writeln!(text, "# TYPE kidafs_remote_{name} {kind}");
            let suffix = if kind == "counter" { "_total" } else { "" };
            for (labels, value) in samples {
                let _ = writeln!(text, "kidafs_remote_{name}{suffix}{labels} {value}");
            }
        };
        let plain = |value: u64| [(String::new(), value)];
        let ways = |of: fn(&Carried) -> u64| {
            [("pushed", &self.pushed), ("pulled", &self.pulled)]
                .map(|(way, carried)| (format!("{{direction=\"{way}\"}}"), of(carried)))
        };
        family(
            "entries",
            "counter",
            "Entries carried",
            &ways(|c| c.entries),
        );
        family(
            "bytes",
            "counter",
            "Bytes of entries carried",
            &ways(|c| c.bytes),
        );
        family("packs", "counter", "Packs carried", &ways(|c| c.packs));
        let reasons = Reason::ALL.map(|reason| {
            let count = self.rejected.0.get(&reason).copied().unwrap_or(0);
            (format!("{{reason=\"{reason}\"}}"), count)
        });
        family(
            "rejected",
            "counter",
            "Packs and entries rejected",
            &reasons,
        );
        family(
            "errors",
            "counter",
            "Failures of the remote",
            &plain(self.errors),
        );
        family(
            "timeouts",
            "counter",
            "Time-outs of the remote",
            &plain(self.timeouts),
        );
        family(
            "requests",
            "counter",
            "Requests to the remote",
            &plain(self.requests),
        );
        let open = u64::from(self.breaker != "closed");
        family(
            "breaker_open",
            "gauge",
            "1 while the remote is not asked",
            &plain(open),
        );
        let opened = self.breaker_opened;
        family(
            "breaker_opened",
            "counter",
            "How often that began",
            &plain(opened),
        );
        family(
            "lag_seconds",
            "gauge",
            "How long something has been waiting to be pushed",
            &plain(self.lag(now)),
        );
        family(
            "last_good_timestamp_seconds",
            "gauge",
            "When the remote was last in order",
            &plain(self.last_good.unwrap_or(0)),
        );
        text
    }
}

/// Where a process tells its state: `.kidafs/remote.json` of the directory. On a mount the daemon keeps it in memory; on a plain
/// directory it is a file, which goes when the process ends.
#[derive(Debug)]
pub struct StateFile {
    folder: PathBuf,
    /// Whether it was ever written as a plain file.
    plain: bool,
    /// Whether it was ever told to a daemon.
    told: bool,
}

impl StateFile {
    /// The one of a directory.
    pub fn of(dir: &Path) -> Self {
        Self {
            folder: dir.join(PRIVATE_DIR),
            plain: false,
            told: false,
        }
    }

    /// Writes the state.
    ///
    /// # Errors
    /// When there is no room, or no right to write there.
    pub fn write(&mut self, state: &State) -> io::Result<()> {
        let mut text = serde_json::to_vec(state).map_err(io::Error::from)?;
        text.push(b'\n');
        let path = self.folder.join(REMOTE_JSON);
        // On a mount the file is always there, and each write replaces all of it.
        let is_mount = !self.plain && self.folder.join(crate::layout::STATS_JSON).exists();
        if is_mount {
            self.told = true;
            return fs::OpenOptions::new()
                .write(true)
                .open(&path)?
                .write_all(&text);
        }
        let made = fs::DirBuilder::new().mode(0o700).create(&self.folder);
        if let Err(error) = made
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        let temporary = self
            .folder
            .join(format!("{REMOTE_JSON}.{}", std::process::id()));
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?
            .write_all(&text)?;
        self.plain = true;
        fs::rename(&temporary, &path)
    }
}

impl Drop for StateFile {
    fn drop(&mut self) {
        if self.told {
            // A daemon that has ended has forgotten it anyway.
            let path = self.folder.join(REMOTE_JSON);
            let _ = fs::OpenOptions::new()
                .write(true)
                .open(path)
                .and_then(|mut file| file.write_all(b"{}\n"));
        }
        if self.plain {
            // Somebody else's by now, or gone with the directory: then there is nothing to do.
            let _ = fs::remove_file(self.folder.join(REMOTE_JSON));
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

/// The state of whoever carries the cache `dir`; `None` if nobody does.
pub fn read(dir: &Path) -> Option<State> {
    let text = fs::read(dir.join(PRIVATE_DIR).join(REMOTE_JSON)).ok()?;
    let state: State = serde_json::from_slice(&text).ok()?;
    Some(state).filter(|state| !state.remote.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_was_written_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State {
            remote: "file:///x".to_owned(),
            behind_since: Some(100),
            ..State::default()
        };
        state.rejected.count(Reason::WrongName);
        let mut file = StateFile::of(folder.path());
        file.write(&state).unwrap();
        file.write(&state).unwrap();
        assert_eq!(read(folder.path()), Some(state.clone()));
        assert_eq!(state.lag(160), 60);
        drop(file);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn every_reason_has_a_sample() {
        let text = State::default().metrics(0);
        for reason in Reason::ALL {
            let line = format!("kidafs_remote_rejected_total{{reason=\"{reason}\"}} 0\n");
            assert!(text.contains(&line), "{text}");
        }
    }
}
