//! A real Python, and a long-lived process of it that answers questions (`tests/python/oracle.py`).

use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use kidafs::format::VersionTag;
use serde_json::Value;

/// The Python that has the engines: what `KIDAFS_PYTHON` says, else what `scripts/python` prints on
/// its last line.
///
/// # Panics
/// There is none, and a test that needs it must not pass without.
pub(crate) fn python() -> PathBuf {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(find).clone()
}

fn find() -> PathBuf {
    if let Some(path) = std::env::var_os("KIDAFS_PYTHON").filter(|path| !path.is_empty()) {
        return path.into();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/python");
    let advice = "set KIDAFS_PYTHON to a Python 3.14 that has kida-templates";
    let output = Command::new(&script)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{} does not run ({error}); {advice}", script.display()));
    let stdout = String::from_utf8_lossy(&output.stdout);
    match stdout.lines().last().filter(|_| output.status.success()) {
        Some(path) => path.into(),
        None => panic!("{} found no Python; {advice}", script.display()),
    }
}

/// Where the packages of [`python`] lie, for other interpreters to import the pure ones from.
pub(crate) fn packages() -> PathBuf {
    let output = Command::new(python())
        .args([
            "-s",
            "-c",
            "import sysconfig; print(sysconfig.get_path('purelib'))",
        ])
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim_end().into()
}

/// Every interpreter from CPython 3.11 on that can be found, one of each release: [`python`], then
/// those on PATH and pyenv's.
pub(crate) fn pythons() -> Vec<PathBuf> {
    let mut found = vec![python()];
    let mut releases = vec![release_of(&found[0]).unwrap()];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let home = std::env::var_os("HOME").unwrap_or_default();
    let pyenv = std::fs::read_dir(Path::new(&home).join(".pyenv/versions"));
    let pyenv = pyenv.into_iter().flatten().flatten();
    folders.extend(pyenv.map(|version| version.path().join("bin")));
    for folder in folders {
        for minor in 11..=14 {
            let candidate = folder.join(format!("python3.{minor}"));
            // pyenv's shims are there for each release, and refuse all but the chosen one.
            if let Some(release) = candidate
                .is_file()
                .then(|| release_of(&candidate))
                .flatten()
                && !releases.contains(&release)
            {
                releases.push(release);
                found.push(candidate);
            }
        }
    }
    found
}

/// An interpreter's release, such as `3.11`; `None` if it does not run.
fn release_of(python: &Path) -> Option<String> {
    let output = Command::new(python)
        .args([
            "-s",
            "-E",
            "-c",
            "import sys; print('%d.%d' % sys.version_info[:2])",
        ])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let release = String::from_utf8(output.stdout).ok()?;
    output
        .status
        .success()
        .then(|| release.trim_end().to_owned())
}

/// A Python process that answers questions until it is dropped.
pub(crate) struct Oracle {
    child: Child,
    requests: Option<ChildStdin>,
    answers: ChildStdout,
}

impl Oracle {
    /// Starts the process.
    pub(crate) fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/oracle.py");
        let python = python();
        let mut child = Command::new(&python)
            // No bytecode of its own beside the script, no settings of the user's, the same order
            // of a set's members each time.
            .args(["-B", "-s", "-P"])
            .env_remove("PYTHONPATH")
            .env("PYTHONHASHSEED", "0")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", python.display()));
        let requests = child.stdin.take();
        let answers = child.stdout.take().unwrap();
        Self {
            child,
            requests,
            answers,
        }
    }

    /// Asks a question; `question` is an object with the member `do`.
    ///
    /// # Panics
    /// The process died, or could not answer.
    pub(crate) fn ask(&mut self, question: Value) -> Value {
        self.ask_with(question, &[])
    }

    /// The same with a payload of bytes.
    pub(crate) fn ask_with(&mut self, question: Value, payload: &[u8]) -> Value {
        let requests = self.requests.as_mut().unwrap();
        for frame in [question.to_string().as_bytes(), payload] {
            let len = u32::try_from(frame.len()).unwrap();
            requests.write_all(&len.to_le_bytes()).unwrap();
            requests.write_all(frame).unwrap();
        }
        requests.flush().unwrap();
        let mut len = [0; 4];
        self.answers.read_exact(&mut len).unwrap();
        let mut answer = vec![0; u32::from_le_bytes(len) as usize];
        self.answers.read_exact(&mut answer).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        if let Some(error) = answer.get("error") {
            panic!("{error}, asked to {}", question["do"]);
        }
        answer
    }

    /// A letter for each stream: what the oracle's judge of that name says.
    pub(crate) fn judge(&mut self, judge: &str, streams: &[Vec<u8>]) -> Vec<u8> {
        let question = serde_json::json!({ "do": judge });
        let answer = self.ask_with(question, &Self::framed(streams));
        let verdicts = answer["verdicts"].as_str().unwrap().as_bytes().to_vec();
        assert_eq!(verdicts.len(), streams.len());
        verdicts
    }

    /// The version tag that the engine has here.
    pub(crate) fn version(&mut self) -> VersionTag {
        let answer = self.ask(serde_json::json!({ "do": "version" }));
        let version: VersionTag = answer["tag"].as_str().unwrap().parse().unwrap();
        assert_eq!(answer["python"], version.python());
        version
    }

    /// Streams as a payload: each with its length before it.
    pub(crate) fn framed(streams: &[Vec<u8>]) -> Vec<u8> {
        let mut payload = Vec::new();
        for stream in streams {
            payload.extend(u32::try_from(stream.len()).unwrap().to_le_bytes());
            payload.extend(stream);
        }
        payload
    }

    /// The byte strings of a list in an answer.
    pub(crate) fn byte_strings(list: &Value) -> Vec<Vec<u8>> {
        let list = list.as_array().unwrap().iter();
        list.map(|text| unhex(text.as_str().unwrap())).collect()
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.requests.take());
        let _ = self.child.wait();
    }
}

/// The bytes of a hex text, as the oracle sends bytes.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16).unwrap()).collect();
    let pairs = digits.chunks(2);
    pairs.map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// The inverse, as the oracle takes bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A directory as the oracle takes it.
pub(crate) fn dir_arg(dir: &Path) -> String {
    hex(dir.as_os_str().as_bytes())
}
