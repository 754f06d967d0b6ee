//! One planner: what is shown is what is done.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use kidafs::stats::PlanRow;

use crate::support::entries::{Random, content, name};
use crate::support::live::{Live, folder, kidafs, store, until};

#[test]
fn the_plan_that_is_shown_is_what_the_next_sweep_removes() {
    for seed in 1..=3 {
        let mut random = Random(seed);
        let folder = folder();
        let dir = folder.path().join("cache");
        let options = [
            "--entry-timeout=10ms",
            "--max-age=4s",
            "--stale-temp=4s",
            "--superseded-grace=off",
            "--max-size=1MiB",
            "--max-entry=256KiB",
            "--sweep-interval=1h",
        ];
        let live = Live::start(&dir, &options);
        for number in 0..40 {
            let size = 600 + random.below(30_000) as usize;
            store(
                &dir,
                &name(&format!("t{number}.html"), seed),
                &content(number, size),
            )
            .unwrap();
        }
        // Staged by writers that are gone, changed in place, and no entry at all.
        for number in 0..3 {
            let staged = format!("{}.0000000{number}.tmp", name("s.html", number));
            fs::write(dir.join(staged), b"half").unwrap();
        }
        fs::write(dir.join("notes.txt"), b"mine").unwrap();
        std::thread::sleep(Duration::from_secs(5));
        for number in 0..random.below(20) {
            store(
                &dir,
                &name(&format!("new{number}.html"), seed),
                &content(number, 2_000),
            )
            .unwrap();
        }
        let dirty = name("t1.html", seed);
        if dir.join(&dirty).exists() {
            fs::write(dir.join(&dirty), content(9, 5_000)).unwrap();
        }
        fs::write(
            dir.join(format!("{}.zzzzzzzz.tmp", name("s.html", 9))),
            b"half",
        )
        .unwrap();
        until("no sweep is under way", Duration::from_secs(20), || {
            !live.stats().sweeping
        });

        let listed = || -> BTreeSet<String> {
            let text = fs::read_to_string(dir.join(".kidafs/entries.jsonl")).unwrap();
            let rows = text
                .lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            rows.map(|row| row["path"].as_str().unwrap().to_owned())
                .collect()
        };
        let (before, swept) = (listed(), live.stats().sweeps);
        let plan = fs::read_to_string(dir.join(".kidafs/plan.jsonl")).unwrap();
        let plan = plan
            .lines()
            .map(|line| serde_json::from_str::<PlanRow>(line).unwrap());
        let planned: BTreeSet<String> = plan.map(|row| row.path).collect();
        let output = kidafs()
            .args(["sweep", "--dry-run", "--json"])
            .arg(&dir)
            .output()
            .unwrap();
        let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let shown = shown.as_array().unwrap().iter();
        let shown: BTreeSet<String> = shown
            .map(|row| row["file"].as_str().unwrap().to_owned())
            .collect();
        live.ask_to_sweep();
        until("a sweep", Duration::from_secs(20), || {
            live.stats().sweeps > swept
        });
        let gone: BTreeSet<String> = before.difference(&listed()).cloned().collect();
        assert_eq!(planned, gone, "seed {seed}");
        assert_eq!(shown, gone, "seed {seed}");
        assert!(gone.len() > 10 && !gone.contains("notes.txt"), "{gone:?}");
        live.unmount();
    }
}
