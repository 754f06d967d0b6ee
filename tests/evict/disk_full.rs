//! The backing filesystem is full: kidafs evicts and goes on; where there is nothing to evict, a store fails and
//! the rest works, until there is space again.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::entries::{content, drafts, files, name};
use crate::support::live::{Live, store, until};
use crate::support::loopfs::{Kind, LoopFs};
use kidafs::tier::Digest;
use rustix::io::Errno;

const SIZE: u64 = 24 << 20;

const BOTH: [Kind; 2] = [Kind::Ext4, Kind::Tmpfs];

struct Small {
    live: Live,
    backing: std::path::PathBuf,
    // Dropped after the daemon.
    fs: LoopFs,
    folder: tempfile::TempDir,
}

impl Small {
    fn new(kind: Kind, options: &[&str]) -> Self {
        let folder = crate::support::live::folder();
        let fs = LoopFs::make(folder.path(), kind, SIZE);
        let backing = fs.directory("backing");
        let dir = folder.path().join("cache");
        let options = [&["--backing", backing.to_str().unwrap()], options].concat();
        Self {
            live: Live::start(&dir, &options),
            backing,
            fs,
            folder,
        }
    }

    fn dir(&self) -> &Path {
        self.live.dir()
    }

    /// Fills the filesystem to the last block by a file of somebody else's.
    fn fill(&self) -> std::path::PathBuf {
        let path = self.fs.path().join("other");
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        let mut chunk = 1 << 20;
        while chunk > 0 {
            if file.write_all(&vec![7; chunk]).is_err() || file.sync_all().is_err() {
                chunk /= 2;
            }
        }
        path
    }

    fn assert_consistent(&self) {
        let on_disk = files(&self.backing);
        for (name, bytes) in &on_disk {
            assert!(!name.ends_with(".tmp"), "{name} is on disk");
            let stored = crate::support::entries::stored_digest(&self.backing.join(name));
            assert_eq!(stored, Some(Digest::of(bytes)), "{name}");
        }
        assert_eq!(drafts(&self.backing), 0);
        let stats = self.live.stats();
        assert_eq!(stats.disk.files, on_disk.len() as u64);
        assert_eq!((stats.staging.bytes, stats.staging.files), (0, 0));
    }
}

fn is_full(error: &std::io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NOSPC)
}

#[test]
fn when_the_disk_is_full_it_evicts_and_goes_on() {
    for (kind, memory) in [(Kind::Ext4, "0"), (Kind::Tmpfs, "64MiB")] {
        {
            let small = Small::new(kind, &["--keep-free", "0%", "--memory", memory]);
            for number in 0..2_000 {
                let name = name(&format!("t{number}.html"), 1);
                let bytes = content(number, 20_000);
                store(small.dir(), &name, &bytes).unwrap_or_else(|error| {
                    panic!("{kind:?}, memory {memory}: store {number} failed: {error}")
                });
                let read = fs::read(small.dir().join(&name)).unwrap();
                assert_eq!(Digest::of(&read), Digest::of(&bytes));
            }
            small.assert_consistent();
            let evicted: u64 = small.live.stats().evictions.values().sum();
            assert!(evicted > 500, "{kind:?}: only {evicted} evicted");
        }
    }
}

#[test]
fn when_nothing_can_be_evicted_a_store_gets_enospc_and_the_old_entry_stays() {
    for kind in BOTH {
        let small = Small::new(kind, &["--keep-free", "0%"]);
        let (entry, old, new) = (name("a.html", 1), content(1, 20_000), content(2, 60_000));
        store(small.dir(), &entry, &old).unwrap();
        let filler = small.fill();
        for _ in 0..3 {
            let error = store(small.dir(), &entry, &new).unwrap_err();
            assert!(is_full(&error), "{kind:?}: {error}");
            let read = fs::read(small.dir().join(&entry)).unwrap();
            assert_eq!(Digest::of(&read), Digest::of(&old), "{kind:?}");
        }
        small.assert_consistent();
        assert!(small.live.stats().errors["ENOSPC"] >= 3);
        // It recovers by itself.
        fs::remove_file(filler).unwrap();
        until("there is space again", Duration::from_secs(10), || {
            store(small.dir(), &entry, &new).is_ok()
        });
        let read = fs::read(small.dir().join(&entry)).unwrap();
        assert_eq!(Digest::of(&read), Digest::of(&new), "{kind:?}");
        small.assert_consistent();
    }
}

#[test]
fn with_async_durability_what_does_not_fit_waits_in_memory_and_is_written_later() {
    let small = Small::new(Kind::Tmpfs, &["--keep-free", "0%", "--durability", "async"]);
    let filler = small.fill();
    let (entry, bytes) = (name("a.html", 1), content(1, 60_000));
    store(small.dir(), &entry, &bytes).unwrap();
    // Longer than it may stay unwritten.
    until("it was tried", Duration::from_secs(15), || {
        small.live.log().contains("stays in memory")
    });
    assert_eq!(fs::read(small.dir().join(&entry)).unwrap(), bytes);
    fs::remove_file(filler).unwrap();
    until("it is on disk", Duration::from_secs(15), || {
        small.backing.join(&entry).exists()
    });
    assert_eq!(fs::read(small.backing.join(&entry)).unwrap(), bytes);
    until("staging is empty", Duration::from_secs(5), || {
        small.live.stats().staging.files == 0
    });
    small.assert_consistent();
}

#[test]
fn kida_goes_on_rendering_on_a_full_disk() {
    let render = |cache: &Path| -> serde_json::Value {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/render_kida.py");
        let output = Command::new(crate::support::python::python())
            .arg("-B")
            .arg(script)
            .arg(cache)
            .arg("--json")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let small = Small::new(Kind::Ext4, &["--keep-free", "0%"]);
    let plain = small.folder.path().join("plain");
    let expected = render(&plain);
    let filler = small.fill();
    let full = render(small.dir());
    assert_eq!(full["digests"], expected["digests"]);
    assert!(full["lost"].as_u64().unwrap() > 0, "the disk was not full");
    small.assert_consistent();
    fs::remove_file(filler).unwrap();
    render(small.dir());
    let again = render(small.dir());
    assert_eq!(again["digests"], expected["digests"]);
    assert_eq!(again["misses"], 0);
    small.assert_consistent();
}
