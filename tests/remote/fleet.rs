//! What these tests share: keys, caches to be carried, servers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::cli::{Ran, kidafs, v2};

/// The version tag of the entries here.
pub(crate) const TAG: &str = "py314_kida0_12_0_ast2";

/// The name of an entry by number.
pub(crate) fn name(number: u64) -> String {
    format!("__kida_{TAG}_page{number}.html_{number:016x}.pyc")
}

/// A whole entry, another one for each number.
pub(crate) fn content(number: u64) -> Vec<u8> {
    // Behind the code the engine takes whatever unpickles for the syntax tree.
    let mut entry = v2();
    entry.extend(number.to_le_bytes());
    entry
}

/// A folder with a key pair, a cache with entries, and a folder for packs.
pub(crate) struct Fleet {
    folder: TempDir,
}

impl Fleet {
    pub(crate) fn new(entries: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fleet = Self { folder };
        fs::create_dir(fleet.path("cache")).unwrap();
        fs::create_dir(fleet.path("packs")).unwrap();
        for number in 0..entries {
            fleet.commit(number);
        }
        fleet
            .run(&["key", "generate", &fleet.text("ci.key")])
            .done();
        fleet
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Adds an entry to the cache as an engine does.
    pub(crate) fn commit(&self, number: u64) {
        let path = self.path("cache").join(name(number));
        let temporary = format!("{}.abcdefgh.tmp", path.display());
        fs::write(&temporary, content(number)).unwrap();
        fs::rename(temporary, path).unwrap();
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut kidafs(arguments))
    }

    /// The folder of packs as a remote.
    pub(crate) fn folder_remote(&self) -> Vec<String> {
        vec!["--remote".into(), format!("file://{}", self.text("packs"))]
    }

    fn carry(&self, words: &[&str], key: &str, remote: &[String]) -> Ran {
        let mut arguments: Vec<&str> = words.to_vec();
        arguments.extend(["--namespace", "shop"]);
        let (option, file) = match key {
            "ci.key" => ("--sign-key", self.text(key)),
            key => ("--trust", self.text(key)),
        };
        arguments.extend([option, &file]);
        arguments.extend(remote.iter().map(String::as_str));
        self.run(&arguments)
    }

    /// A command that signs.
    pub(crate) fn sign(&self, words: &[&str], remote: &[String]) -> Ran {
        self.carry(words, "ci.key", remote)
    }

    /// A command that trusts.
    pub(crate) fn trust(&self, words: &[&str], remote: &[String]) -> Ran {
        self.carry(words, "ci.pub", remote)
    }

    pub(crate) fn push(&self, remote: &[String]) -> serde_json::Value {
        self.sign(&["push", &self.text("cache"), "--json"], remote)
            .json()
    }

    /// Pulls into a folder.
    pub(crate) fn pull(&self, into: &str, remote: &[String]) -> serde_json::Value {
        let ran = self.trust(&["pull", &self.text(into), "--json"], remote);
        serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}{}", ran.out, ran.err))
    }

    /// The objects of the folder of packs.
    pub(crate) fn objects(&self, ending: &str) -> Vec<PathBuf> {
        let folder = self.path("packs").join("shop/v1");
        let files = fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().path());
        files
            .filter(|path| path.extension().is_some_and(|found| found == ending))
            .collect()
    }
}

/// Asserts that a folder holds the same entries as another.
pub(crate) fn assert_same(one: &Path, other: &Path) {
    let files = crate::support::entries::files;
    assert_eq!(files(one), files(other));
}

/// Servers that scripts/fleet-servers starts, and ends when this is dropped.
pub(crate) struct Servers {
    folder: TempDir,
    told: String,
}

fn script() -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    Command::new(root.join("scripts/fleet-servers"))
}

impl Servers {
    pub(crate) fn start(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // nginx's workers have to get there, and what it starts must not hold this process's pipe.
        let out = fs::File::create(folder.path().join("told")).unwrap();
        let started = script()
            .arg("start")
            .arg(folder.path())
            .args(names)
            .stdin(Stdio::null())
            .stdout(out)
            .status()
            .unwrap();
        assert!(started.success());
        let told = fs::read_to_string(folder.path().join("env")).unwrap();
        Self { folder, told }
    }

    /// What the script told under a name.
    pub(crate) fn get(&self, name: &str) -> String {
        let line = self
            .told
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.told))
            .to_owned()
    }

    pub(crate) fn ca(&self) -> String {
        self.folder
            .path()
            .join("ca.pem")
            .to_str()
            .unwrap()
            .to_owned()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = script().arg("stop").arg(self.folder.path()).status();
    }
}
