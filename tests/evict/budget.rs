//! The limits: of the disk, of memory, of the staging area, of one entry.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::entries::{Random, content, files, name};
use crate::support::live::{Live, store};
use crate::support::loopfs::{Kind, LoopFs};
use kidafs::evict::Reason;
use rustix::io::Errno;

const MIB: u64 = 1 << 20;

/// Tells this program to be a writer: directory, number, count of stores.
const WRITER: &str = "TEST_WRITER";

/// Not a test of its own: what the writers' processes run.
#[test]
fn writer_process() {
    let Ok(task) = std::env::var(WRITER) else {
        return;
    };
    let mut task = task.split('|');
    let dir = Path::new(task.next().unwrap());
    let writer: u64 = task.next().unwrap().parse().unwrap();
    let count: u64 = task.next().unwrap().parse().unwrap();
    let bytes = content(writer, 10_000);
    for number in 0..count {
        let name = name(&format!("w{writer}-{number}.html"), number);
        store(dir, &name, &bytes).unwrap();
    }
}

fn start_writer(dir: &Path, writer: usize, count: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["-q", "--exact", "budget::writer_process"])
        .env(WRITER, format!("{}|{writer}|{count}", dir.display()))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

/// Bytes that are allocated on a filesystem.
fn used(path: &Path) -> u64 {
    let space = rustix::fs::statvfs(path).unwrap();
    (space.f_blocks - space.f_bfree) * space.f_frsize
}

#[test]
fn four_writers_stay_within_the_budget_and_what_is_read_survives() {
    let stores = crate::support::live::size("KIDAFS_TEST_STORES", 16_000);
    let (budget, memory, staging) = (64 * MIB, 16 * MIB, 16 * MIB);
    let folder = crate::support::live::folder();
    // A filesystem of its own tells at one instant what is allocated.
    let fs = LoopFs::make(folder.path(), Kind::Tmpfs, 512 * MIB);
    let backing = fs.directory("backing");
    let dir = folder.path().join("cache");
    let live = Live::start(
        &dir,
        &[
            "--backing",
            backing.to_str().unwrap(),
            "--max-size",
            "64MiB",
            "--memory",
            "16MiB",
            "--staging",
            "16MiB",
            "--entry-timeout",
            "500ms",
        ],
    );
    let hot: Vec<String> = (0..50).map(|number| name("hot.html", number)).collect();
    for (number, name) in hot.iter().enumerate() {
        store(&dir, name, &content(number as u64, 10_000)).unwrap();
    }
    let going = AtomicBool::new(true);
    let (mut most_used, mut most_counted) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while going.load(Ordering::Relaxed) {
                for (number, name) in hot.iter().enumerate() {
                    let bytes = fs::read(dir.join(name));
                    let bytes = bytes.unwrap_or_else(|error| panic!("{name} was evicted: {error}"));
                    assert_eq!(bytes, content(number as u64, 10_000));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let mut writers: Vec<Child> = (0..4)
            .map(|writer| start_writer(&dir, writer, stores / 4))
            .collect();
        while writers
            .iter_mut()
            .any(|child| child.try_wait().unwrap().is_none())
        {
            let stats = live.stats();
            most_used = most_used.max(used(fs.path()));
            most_counted = most_counted.max(stats.disk.bytes);
            std::thread::sleep(Duration::from_millis(20));
        }
        going.store(false, Ordering::Relaxed);
        for mut child in writers {
            assert!(child.wait().unwrap().success(), "a writer failed");
        }
    });
    let stats = live.stats();
    let resident = live.most_resident();
    println!(
        "{stores} stores: {} MiB counted and {} MiB allocated at the most, {} MiB resident at the most, {:?}",
        most_counted / MIB,
        most_used / MIB,
        resident / MIB,
        stats.evictions
    );
    assert!(
        most_counted <= budget + 4 * 12_288,
        "counted {most_counted}"
    );
    assert!(most_used <= budget + staging, "allocated {most_used}");
    assert!(
        resident <= memory + staging + 60 * MIB,
        "resident {resident}"
    );
    assert_eq!(stats.commits, stores as u64 + 50);
    assert_eq!(stats.staging.bytes, 0);
    let on_disk = files(&backing).len() as u64;
    assert_eq!(stats.disk.files, on_disk);
    assert_eq!(stats.commits - stats.evictions[&Reason::Budget], on_disk);
    assert_eq!(
        stats.evictions.keys().collect::<Vec<_>>(),
        [&Reason::Budget]
    );
    live.unmount();
}

#[test]
fn the_number_of_entries_is_limited_too() {
    let folder = crate::support::live::folder();
    let dir = folder.path().join("cache");
    let live = Live::start(&dir, &["--max-entries", "100"]);
    for number in 0..1_000 {
        store(&dir, &name(&format!("t{number}.html"), 1), &content(1, 700)).unwrap();
        assert!(live.stats().disk.files <= 100);
    }
    // The youngest are there.
    let last = name("t999.html", 1);
    assert_eq!(fs::read(dir.join(last)).unwrap(), content(1, 700));
    live.unmount();
}

fn errno(error: &std::io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

#[test]
fn beyond_the_staging_area_a_rename_fails_with_enospc_and_what_was_committed_stays() {
    let folder = crate::support::live::folder();
    let dir = folder.path().join("cache");
    let live = Live::start(&dir, &["--staging", "1MiB", "--max-entry", "1MiB"]);
    let old = name("a.html", 1);
    store(&dir, &old, &content(1, 10_000)).unwrap();
    let mut staged = Vec::new();
    for number in 0..4 {
        let path = dir.join(format!("{}.abcdefg{number}.tmp", name("b.html", number)));
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(&content(number, 300_000)).unwrap();
        if number == 3 {
            let error = fs::rename(&path, dir.join(name("b.html", number))).unwrap_err();
            assert_eq!(errno(&error), Some(Errno::NOSPC));
        }
        staged.push(file);
    }
    assert!(live.stats().staging.bytes <= MIB);
    assert_eq!(fs::read(dir.join(&old)).unwrap(), content(1, 10_000));
    // What gives its place back makes room.
    for number in 0..4 {
        fs::remove_file(dir.join(format!("{}.abcdefg{number}.tmp", name("b.html", number))))
            .unwrap();
    }
    drop(staged);
    // Once the kernel has forgotten the files, which it says a moment after they are closed.
    crate::support::live::until("there is room again", Duration::from_secs(20), || {
        store(&dir, &name("c.html", 1), &content(1, 300_000)).is_ok()
    });
    live.unmount();
    assert_eq!(crate::support::entries::names(&dir).len(), 2);
}

#[test]
fn beyond_the_limit_of_one_entry_a_rename_fails_with_efbig() {
    let folder = crate::support::live::folder();
    let dir = folder.path().join("cache");
    let live = Live::start(&dir, &["--max-entry", "100KiB"]);
    let fits = name("fits.html", 1);
    store(&dir, &fits, &content(1, 100 << 10)).unwrap();
    let error = store(&dir, &name("large.html", 1), &content(1, (100 << 10) + 1)).unwrap_err();
    assert_eq!(errno(&error), Some(Errno::FBIG));
    let stats = live.stats();
    assert_eq!(stats.errors.get("EFBIG"), Some(&1));
    assert_eq!((stats.commits, stats.staging.bytes), (1, 0));
    live.unmount();
    assert_eq!(crate::support::entries::names(&dir), [fits]);
}

#[test]
fn rewriting_the_one_large_entry_fits_a_budget_of_its_size() {
    let folder = crate::support::live::folder();
    let dir = folder.path().join("cache");
    let live = Live::start(&dir, &["--max-size", "1MiB"]);
    let large = name("large.html", 1);
    for round in 0..5 {
        let bytes = content(round, 900_000);
        store(&dir, &large, &bytes).unwrap();
        assert_eq!(fs::read(dir.join(&large)).unwrap(), bytes);
    }
    let mut random = Random(1);
    for _ in 0..20 {
        store(&dir, &name("a.html", random.next()), &content(1, 100_000)).unwrap();
    }
    live.unmount();
}
