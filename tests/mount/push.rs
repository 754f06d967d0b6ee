//! What the daemon pushes into the kernel's page cache is never older than what was written: in-place writes,
//! commits, pushes and reads race.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support::mount::Mount;

/// Not a whole number of pages, so that the last one has to be pushed or read.
const NUMBERS: usize = 2_500;

/// Content that says how new it is, everywhere.
fn content(version: u32) -> Vec<u8> {
    version.to_ne_bytes().repeat(NUMBERS)
}

fn oldest(bytes: &[u8]) -> u32 {
    let numbers = bytes
        .chunks_exact(4)
        .map(|number| u32::from_ne_bytes(number.try_into().unwrap()));
    numbers.min().unwrap()
}

/// Commits a version by rename; returns the file, still open.
fn commit(dir: &Path, name: &str, version: u32) -> File {
    let temporary = dir.join(format!("{name}.abcdefgh.tmp"));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&temporary)
        .unwrap();
    file.write_all_at(&content(version), 0).unwrap();
    fs::rename(&temporary, dir.join(name)).unwrap();
    file
}

#[test]
fn nothing_older_than_what_was_written_is_ever_read() {
    let mut mount = Mount::new(&["--poll=0s"]);
    let name = "__kida_py314_page.html_0123456789abcdef.pyc";
    let (dir, path) = (mount.dir().to_owned(), mount.path(name));
    let dir = dir.as_path();
    let written = AtomicU32::new(1);
    let ended = AtomicBool::new(false);
    commit(dir, name, 1);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !ended.load(Ordering::Acquire) {
                    let at_least = written.load(Ordering::Acquire);
                    let bytes = fs::read(&path).unwrap();
                    assert_eq!(bytes.len(), NUMBERS * 4);
                    assert!(
                        oldest(&bytes) >= at_least,
                        "{} < {at_least}",
                        oldest(&bytes)
                    );
                }
            });
        }
        let end = Instant::now() + Duration::from_secs(3);
        let mut version = 1;
        while Instant::now() < end {
            version += 1;
            let file = commit(dir, name, version);
            written.store(version, Ordering::Release);
            // While the commit is being pushed: as soon as can be, or a little later.
            for step in 0..version % 4 {
                version += 1;
                file.write_all_at(&content(version), 0).unwrap();
                written.store(version, Ordering::Release);
                (0..step * 500).for_each(|_| std::hint::spin_loop());
            }
            let bytes = fs::read(&path).unwrap();
            if oldest(&bytes) != version {
                ended.store(true, Ordering::Release);
                panic!("{} was read after {version} was written", oldest(&bytes));
            }
        }
        ended.store(true, Ordering::Release);
    });
    mount.umount();
}
