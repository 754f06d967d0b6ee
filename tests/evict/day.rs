//! A developer's day with the real engine: edits leave no heap of old entries behind.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::live::{Live, until};
use kidafs::evict::Reason;

fn edit(cache: &Path, templates: &Path, options: &[&str]) -> usize {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/edit_kida.py");
    let output = Command::new(crate::support::python::python())
        .arg("-B")
        .arg(script)
        .args([cache, templates])
        .args(options)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap()
}

const SHORT: [&str; 6] = [
    "--entry-timeout",
    "1s",
    "--superseded-grace",
    "2s",
    "--sweep-interval",
    "1s",
];

#[test]
fn a_day_of_edits_leaves_the_live_entries() {
    let edits = crate::support::live::size("KIDAFS_TEST_EDITS", 60);
    let (templates, count) = (20, edits.to_string());
    let folder = crate::support::live::folder();
    let plain = folder.path().join("plain");
    let rendered = edit(
        &plain,
        &folder.path().join("of-plain"),
        &["--edits", &count],
    );
    assert_eq!(rendered, templates * edits);
    let without = crate::support::entries::names(&plain).len();
    assert_eq!(
        without,
        templates * edits,
        "a plain directory keeps them all"
    );

    let dir = folder.path().join("cache");
    let live = Live::start(&dir, &SHORT);
    let rendered = edit(&dir, &folder.path().join("of-kidafs"), &["--edits", &count]);
    assert_eq!(rendered, templates * edits);
    let at_once = crate::support::entries::names(&dir).len();
    until(
        "only the live ones are left",
        Duration::from_secs(90),
        || crate::support::entries::names(&dir).len() <= templates,
    );
    println!(
        "{edits} edits: {without} files in a plain directory, {at_once} here, then {templates}"
    );
    let stats = live.stats();
    assert_eq!(stats.commits, (templates * edits) as u64);
    assert_eq!(
        stats.evictions[&Reason::Superseded],
        (templates * (edits - 1)) as u64
    );
    assert_eq!(crate::support::entries::names(&dir).len(), templates);
    live.unmount();
}

#[test]
fn two_roots_that_share_a_cache_and_are_both_in_use_lose_nothing() {
    let folder = crate::support::live::folder();
    let dir = folder.path().join("cache");
    // The grace has room for what a loaded machine makes of the pauses between two processes.
    let graces = [
        "--entry-timeout",
        "200ms",
        "--superseded-grace",
        "3s",
        "--sweep-interval",
        "500ms",
    ];
    let live = Live::start(&dir, &graces);
    let templates = folder.path().join("templates");
    let began = std::time::Instant::now();
    // Several graces long.
    while began.elapsed() < Duration::from_secs(10) {
        edit(&dir, &templates, &["--edits", "5", "--roots", "2"]);
    }
    let stats = live.stats();
    assert_eq!(stats.commits, 40, "each entry was compiled once");
    assert!(stats.evictions.is_empty(), "{:?}", stats.evictions);
    live.unmount();
}
