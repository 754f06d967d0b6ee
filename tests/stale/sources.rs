//! Sources are looked at, and hostile ones cost nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::support::entries::name;
use crate::support::live::{Live, folder, store, until};

/// A v2 entry whose code names `file`: a code object of CPython 3.14 with that path in it.
fn entry_of(file: &str) -> Vec<u8> {
    let script = "
import marshal, struct, sys
code = marshal.dumps(compile('x = 1', sys.argv[1], 'exec'))
sys.stdout.buffer.write(b'\\0KDA' + struct.pack('<I', len(code)) + code)
";
    let output = std::process::Command::new(crate::support::python::python())
        .args(["-B", "-c", script, file])
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn a_hostile_source_costs_nothing_and_hangs_nothing() {
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let dir = folder.path().join("cache");
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o666),
        0,
    )
    .unwrap();
    std::os::unix::fs::symlink("loop", at("loop")).unwrap();
    fs::File::create(at("sparse"))
        .unwrap()
        .set_len(100 << 30)
        .unwrap();
    let live = Live::start(&dir, &["--entry-timeout=10ms", "--sweep-interval=1h"]);
    let hostile = [
        at("fifo"),
        at("loop"),
        at("sparse"),
        at("cache/x"),
        "/dev/zero".to_owned(),
        "/proc/self/mem".to_owned(),
        "/proc/kmsg".to_owned(),
        "relative/page.html".to_owned(),
        "/".repeat(90_000),
    ];
    for (number, file) in hostile.iter().enumerate() {
        let name = name(&format!("t{number}.html"), number as u64);
        store(&dir, &name, &entry_of(file)).unwrap();
    }
    let before = live.resident();
    for _ in 0..3 {
        let (began, sweeps) = (Instant::now(), live.stats().sweeps);
        live.ask_to_sweep();
        until("a sweep", Duration::from_secs(20), || {
            live.stats().sweeps > sweeps
        });
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "{:?}",
            began.elapsed()
        );
    }
    let verdicts = live.stats().verdicts;
    assert_eq!(verdicts["kida"].keys().collect::<Vec<_>>(), ["unknown"]);
    assert!(live.resident() < before + (32 << 20));
    live.unmount();
}

#[test]
fn sources_off_looks_at_nothing() {
    let folder = folder();
    let dir = folder.path().join("cache");
    let live = Live::start(&dir, &["--sources=off", "--sweep-interval=1h"]);
    store(&dir, &name("a.html", 1), &entry_of("/etc/hostname")).unwrap();
    let sweeps = live.stats().sweeps;
    live.ask_to_sweep();
    until("a sweep", Duration::from_secs(20), || {
        live.stats().sweeps > sweeps
    });
    assert!(live.stats().verdicts.is_empty());
    live.unmount();
}
