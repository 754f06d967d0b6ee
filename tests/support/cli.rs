//! Running the binary on plain directories.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use assert_cmd::Command;
use tempfile::TempDir;

use super::entries::names;

/// The binary, without any option from this machine's files or this process's variables.
pub(crate) fn kidafs(arguments: &[&str]) -> Command {
    let mut command = Command::from_std(super::mount::kidafs());
    command.args(arguments);
    command
}

/// What a run came to.
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().expect("the binary runs");
        Self {
            status: output.status.code(),
            out: String::from_utf8(output.stdout).expect("the output is UTF-8"),
            err: String::from_utf8(output.stderr).expect("the errors are UTF-8"),
        }
    }

    /// The output of a run that must have succeeded in silence.
    pub(crate) fn done(self) -> String {
        assert_eq!(
            (self.status, self.err.as_str()),
            (Some(0), ""),
            "{}",
            self.out
        );
        self.out
    }

    /// The one sentence of a run that must have failed with `status`.
    pub(crate) fn failed(self, status: i32) -> String {
        assert_eq!(self.status, Some(status), "{}{}", self.out, self.err);
        let line = self.err.strip_suffix('\n').expect("the error is a line");
        assert!(!line.contains('\n'), "more than one line: {line}");
        line.strip_prefix("kidafs: ")
            .expect("the error says who speaks")
            .to_owned()
    }

    /// The output of a successful run, as JSON.
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.done()).expect("the output is JSON")
    }
}

pub(crate) fn run(arguments: &[&str]) -> Ran {
    Ran::of(&mut kidafs(arguments))
}

/// A cache in a temporary folder.
pub(crate) struct Cache(TempDir);

impl Cache {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder can be made"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn dir(&self) -> &str {
        self.path()
            .to_str()
            .expect("temporary folders have plain names")
    }

    /// Writes a file, last written and read so many days ago.
    pub(crate) fn add(&self, name: &str, content: &[u8], days: u64) -> PathBuf {
        let path = self.path().join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).expect("a folder can be made");
        }
        fs::write(&path, content).expect("a file can be written");
        let time = SystemTime::now() - Duration::from_secs(days * 86_400 + 60);
        let times = fs::FileTimes::new().set_modified(time).set_accessed(time);
        fs::File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_times(times))
            .expect("times can be set");
        path
    }

    pub(crate) fn names(&self) -> Vec<String> {
        names(self.path())
    }
}
