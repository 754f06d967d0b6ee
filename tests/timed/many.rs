//! A hundred thousand entries: the mount answers at once, memory stays small, a sweep is short and in nobody's
//! way. The times that are asserted are those of an optimised build; other builds get ten times as long.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::alone;
use crate::support::entries::{content, name};
use crate::support::live::{Live, until};

const MIB: u64 = 1 << 20;

/// An optimised daemon is given the promised time.
fn promised(time: Duration) -> Duration {
    if cfg!(debug_assertions) {
        time * 10
    } else {
        time
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn hit(dir: &Path, names: &[String]) -> Duration {
    let began = Instant::now();
    for name in names {
        assert!(!fs::read(dir.join(name)).unwrap().is_empty());
    }
    began.elapsed() / u32::try_from(names.len()).unwrap()
}

#[test]
fn a_hundred_thousand_entries_are_no_burden() {
    let _alone = alone();
    let count = crate::support::live::size("KIDAFS_TEST_ENTRIES", 30_000);
    let folder = crate::support::live::folder();
    let dir = folder.path().join("cache");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let bytes = content(1, 1_000);
    for number in 0..count {
        fs::write(dir.join(name(&format!("t{number}.html"), 1)), &bytes).unwrap();
    }
    let began = Instant::now();
    let live = Live::start(&dir, &["--max-entries", "200000", "--sweep-interval", "1h"]);
    let mounted = began.elapsed();
    let after_mount = live.resident();
    assert_eq!(live.stats().disk.files, count as u64);

    let hot: Vec<String> = (0..200)
        .map(|number| name(&format!("t{number}.html"), 1))
        .collect();
    hit(&dir, &hot);
    let alone = median((0..50).map(|_| hit(&dir, &hot)).collect());
    let sweeps = |live: &Live| live.stats().sweeps;
    let (before, began) = (sweeps(&live), Instant::now());
    live.ask_to_sweep();
    let mut during = Vec::new();
    until("the sweep is done", Duration::from_secs(30), || {
        during.push(hit(&dir, &hot));
        sweeps(&live) > before
    });
    let swept = began.elapsed();
    // Every entry's inode is known to the kernel.
    for entry in fs::read_dir(&dir).unwrap() {
        entry.unwrap().metadata().unwrap();
    }
    let stats = live.stats();
    let overhead = live.most_resident() - stats.memory.bytes;
    let during = median(during);
    println!(
        "{count} entries: mounted in {mounted:?}, {} MiB resident then, {} MiB beside content at the most, \
         swept within {swept:?}, a hit takes {alone:?}, during a sweep {during:?}",
        after_mount / MIB,
        overhead / MIB
    );
    assert!(mounted < promised(Duration::from_secs(1)), "{mounted:?}");
    assert!(swept < promised(Duration::from_secs(1)), "{swept:?}");
    // An unoptimised daemon's own code is some MiB larger.
    let limit = if cfg!(debug_assertions) { 70 } else { 60 };
    assert!(overhead < limit * MIB, "{overhead}");
    // No hit waits for the sweep; but the sweep and the thread that looks at sources may keep two CPUs busy for its
    // time, and then a hit has half of one.
    assert!(
        during < 4 * alone,
        "{during:?} during a sweep, {alone:?} alone"
    );
    assert_eq!(stats.evictions.len(), 0);
    live.unmount();
}
