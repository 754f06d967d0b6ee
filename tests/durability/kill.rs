//! The daemon is killed at random moments: what was committed is there, whole, and nothing else is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::entries::{Random, content, drafts, files, name, stored_digest};
use crate::support::live::{Live, store, until};
use kidafs::tier::Digest;

/// What one thread did to its names: the content that was acknowledged last, and the one that was under way
/// when the daemon died.
#[derive(Debug, Default, Clone)]
struct Known {
    acknowledged: Option<Digest>,
    under_way: Option<Digest>,
}

/// Stores, rewrites and renames over existing entries until the mount fails.
fn work(dir: &Path, thread: u64, mut random: Random, known: &mut BTreeMap<String, Known>) {
    loop {
        let template = format!("t{thread}-{}.html", random.below(30));
        let name = name(&template, 1);
        let size = 600 + random.below(30_000) as usize;
        let bytes = content(random.next(), size);
        let one = known.entry(name.clone()).or_default();
        one.under_way = Some(Digest::of(&bytes));
        if store(dir, &name, &bytes).is_err() {
            return;
        }
        one.acknowledged = one.under_way.take();
        // A reader meets what the daemon tells the kernel about the new content.
        if fs::read(dir.join(&name)).is_err() {
            return;
        }
        // Old sources of one template, for the sweeps to evict.
        let chaff = crate::support::entries::name(&format!("chaff{thread}.html"), random.next());
        if store(dir, &chaff, &content(1, 2_000)).is_err() {
            return;
        }
    }
}

fn check(dir: &Path, known: &BTreeMap<String, Known>, round: usize) {
    let found = files(dir);
    for (name, known) in known {
        let bytes = found.get(name).map(|bytes| Digest::of(bytes));
        let expected = [known.acknowledged, known.under_way];
        assert!(
            bytes == known.acknowledged || expected.contains(&bytes) && bytes.is_some(),
            "round {round}: {name} is {bytes:?} instead of {expected:?}"
        );
    }
    for (name, bytes) in &found {
        assert!(!name.ends_with(".tmp"), "round {round}: {name} is on disk");
        let stored = stored_digest(&dir.join(name));
        assert_eq!(stored, Some(Digest::of(bytes)), "round {round}: {name}");
    }
}

#[test]
fn whatever_was_renamed_is_there_after_the_daemon_was_killed_at_any_moment() {
    let rounds = crate::support::live::size("KIDAFS_TEST_KILLS", 25);
    let folder = crate::support::live::folder();
    let dir = folder.path().join("cache");
    let mut known: Vec<BTreeMap<String, Known>> = vec![BTreeMap::new(); 3];
    let mut random = Random(0x0051_9ac5);
    let (mut stored, mut given_up) = (0, 0);
    for round in 0..rounds {
        let mut live = Live::start(
            &dir,
            &[
                "--entry-timeout",
                "1ms",
                "--superseded-grace",
                "2ms",
                "--sweep-interval",
                "20ms",
                "--memory",
                "1MiB",
            ],
        );
        assert_eq!(drafts(&dir), 0, "round {round}");
        std::thread::scope(|scope| {
            for (thread, known) in known.iter_mut().enumerate() {
                let (dir, random) = (&dir, Random(random.next()));
                scope.spawn(move || work(dir, thread as u64, random, known));
            }
            let alive = Instant::now();
            let limit = Duration::from_millis(5 + random.below(150));
            while alive.elapsed() < limit {
                live.ask_to_sweep();
                std::thread::sleep(Duration::from_millis(2));
            }
            given_up += usize::from(!live.kill());
        });
        live.detach();
        drop(live);
        let all = known.iter().flatten();
        let all: BTreeMap<_, _> = all
            .map(|(name, known)| (name.clone(), known.clone()))
            .collect();
        check(&dir, &all, round);
        stored += all
            .values()
            .filter(|known| known.acknowledged.is_some())
            .count();
        // What was under way has been decided: it is what is there.
        for known in known.iter_mut().flat_map(BTreeMap::iter_mut) {
            let there = fs::read(dir.join(known.0)).ok();
            *known.1 = Known {
                acknowledged: there.map(|bytes| Digest::of(&bytes)),
                under_way: None,
            };
        }
    }
    println!(
        "{rounds} kills, {stored} entries checked; {given_up} daemons died only when their mount was given up"
    );
    assert!(stored > rounds, "the load stored next to nothing: {stored}");
    // The last daemon's leftovers go with the next start, and its entries are served.
    let live = Live::start(&dir, &[]);
    for (name, known) in known.iter().flatten() {
        let bytes = fs::read(dir.join(name)).ok();
        assert_eq!(bytes.map(|bytes| Digest::of(&bytes)), known.acknowledged);
    }
    assert_eq!(live.stats().quarantined, 0);
    live.unmount();
    assert_eq!(drafts(&dir), 0);
}

#[test]
fn who_waits_for_a_daemon_that_does_not_answer_goes_on_after_a_lazy_umount() {
    let folder = crate::support::live::folder();
    let dir = folder.path().join("cache");
    let kept = name("a.html", 1);
    let mut live = Live::start(&dir, &[]);
    store(&dir, &kept, b"kept").unwrap();
    live.signal(rustix::process::Signal::STOP);
    std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let waiting = scope.spawn({
            let dir = &dir;
            move || {
                tell.send(rustix::thread::gettid()).unwrap();
                store(dir, &name("b.html", 1), b"never answered")
            }
        });
        let thread = told.recv().unwrap().as_raw_nonzero();
        let stat = format!("/proc/self/task/{thread}/stat");
        until("the thread waits", Duration::from_secs(10), || {
            let stat = fs::read_to_string(&stat).unwrap();
            stat.rsplit(") ").next().unwrap().starts_with(['S', 'D'])
        });
        let output = crate::support::live::kidafs()
            .args(["umount", "--lazy"])
            .arg(&dir)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(waiting.join().unwrap().is_err());
    });
    live.signal(rustix::process::Signal::CONT);
    live.wait(Duration::from_secs(10));
    drop(live);
    let live = Live::start(&dir, &[]);
    assert_eq!(fs::read(dir.join(&kept)).unwrap(), b"kept");
    live.unmount();
}
