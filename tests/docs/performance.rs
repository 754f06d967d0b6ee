//! The page on performance shows what was measured, and the benchmark's own arithmetic is right.

use std::path::Path;
use std::process::Command;

use crate::support::python::python;

/// Runs a file of the benchmark with the Python that has the engines.
fn bench(file: &str, arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python())
        .args(["-B", "-s"])
        .arg(root.join("scripts").join(file))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_page_and_the_chart_show_the_measured_numbers() {
    bench("bench.d", &["--check"]);
}

#[test]
fn the_benchmark_counts_right() {
    bench("bench.d/test_parts.py", &[]);
}
