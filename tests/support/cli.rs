//! Running the binary on plain directories.

// Each test file uses a part of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use assert_cmd::Command;
use tempfile::TempDir;

/// `marshal.dumps(compile("def render(ctx):\n    return 'hello ' + ctx['name']\n", "page.html", "exec"))`
/// of CPython 3.14, in hex.
const CODE: &str = "e30000000000000000000000000100000000000000f30c0000008000520017007400520123002902630100\
000000000000000000000300000003000000f32200000080005200560052012c1a000000000000000000002c0000000000000000000000\
230029027a0668656c6c6f20da046e616d65a9002901da03637478730100000026da09706167652e68746d6cda0672656e646572720700\
00000100000073110000008000d80b1390639826956bd50b21d00421f3000000004e290172070000007204000000720800000072060000\
00da083c6d6f64756c653e720900000001000000730a000000f003010101f4020101227208000000";

/// `pickle.dumps(['x', 1], 4)`.
pub(crate) const PICKLE: &[u8] = b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x5d\x94\x28\x8c\x01x\x94K\x01e.";

/// A marshalled code object.
pub(crate) fn code() -> Vec<u8> {
    (0..CODE.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&CODE[at..at + 2], 16).expect("the text above is hex"))
        .collect()
}

/// A v2 entry: code and a syntax tree.
pub(crate) fn v2() -> Vec<u8> {
    let code = code();
    let mut entry = b"\0KDA".to_vec();
    entry.extend(
        u32::try_from(code.len())
            .expect("it is short")
            .to_le_bytes(),
    );
    entry.extend(code);
    entry.extend(PICKLE);
    entry
}

/// The binary, without any option from this machine's files or this process's variables.
pub(crate) fn kidafs(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("kidafs").expect("cargo builds it for the tests");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KIDAFS_") {
            command.env_remove(name);
        }
    }
    command
        .env("KIDAFS_CONFIG", "/dev/null")
        // Most directories of these tests hold what is no entry.
        .env("KIDAFS_ADOPT", "true")
        .args(arguments);
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
        let mut names: Vec<_> = fs::read_dir(self.path())
            .expect("the folder can be read")
            .map(|entry| {
                let name = entry.expect("the folder can be read").file_name();
                name.into_string().expect("names are UTF-8")
            })
            .collect();
        names.sort();
        names
    }
}
