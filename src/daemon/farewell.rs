//! What a daemon that could not write everything says at its end, for the command that ended it.
//!
//! Its exit status is its parent's to hear, which that command is not. So it leaves the names in the file that it
//! holds locked, which is there already: a full disk, the usual reason, has room for that.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::layout::{LOCK, PRIVATE_DIR};

/// Names beyond that are only counted, so that all stays in one block.
const MOST_NAMES: usize = 20;

/// The longest name that is kept whole, in characters.
const LONGEST_NAME: usize = 120;

/// What could not be written, and is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// How many files.
    pub count: usize,
    /// Paths of some of them, from the mount's root.
    pub names: Vec<String>,
}

impl Lost {
    /// Of files with these paths; `None` if there are none.
    pub fn of(paths: &[String]) -> Option<Self> {
        let shorten = |path: &String| path.chars().take(LONGEST_NAME).collect();
        let names = paths.iter().take(MOST_NAMES).map(shorten).collect();
        (!paths.is_empty()).then_some(Self {
            count: paths.len(),
            names,
        })
    }
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files = if self.count == 1 { "file" } else { "files" };
        write!(f, "{} {files} ({}", self.count, self.names.join(", "))?;
        if self.count > self.names.len() {
            f.write_str(", …")?;
        }
        f.write_str(")")
    }
}

/// Writes it after the process number in the lock's file.
///
/// # Errors
/// Those of the system.
pub(super) fn leave(mut lock: &File, lost: &Lost) -> io::Result<()> {
    let lost = serde_json::to_string(lost)?;
    let text = format!("{}\n{lost}\n", std::process::id());
    // Written over what is there, and cut off afterwards: that needs no new block.
    lock.rewind()?;
    lock.write_all(text.as_bytes())?;
    lock.set_len(text.len() as u64)
}

/// What the daemon `pid`, which has ended, left in the backing directory `dir`; `None`: nothing was lost, or it
/// cannot be told.
pub fn read(dir: &Path, pid: Pid) -> Option<Lost> {
    let file = File::open(dir.join(PRIVATE_DIR).join(LOCK)).ok()?;
    let mut text = String::new();
    file.take(1 << 16).read_to_string(&mut text).ok()?;
    let (first, rest) = text.split_once('\n')?;
    let own = first.trim().parse() == Ok(pid.as_raw_pid());
    own.then(|| serde_json::from_str(rest.trim()).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_read_as_it_was_left_and_by_its_own_daemon_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(PRIVATE_DIR)).unwrap();
        let lock = File::create(dir.path().join(PRIVATE_DIR).join(LOCK)).unwrap();
        let own = rustix::process::getpid();
        assert_eq!(read(dir.path(), own), None);
        let paths: Vec<_> = (0..MOST_NAMES + 5)
            .map(|n| format!("sub/{n}.html"))
            .collect();
        let lost = Lost::of(&paths).unwrap();
        leave(&lock, &lost).unwrap();
        assert_eq!(read(dir.path(), own), Some(lost.clone()));
        assert_eq!(read(dir.path(), Pid::INIT), None);
        assert!(
            lost.to_string().starts_with("25 files (sub/0.html, "),
            "{lost}"
        );
        assert_eq!(Lost::of(&[]), None);
    }
}
