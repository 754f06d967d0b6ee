//! It is never in the application's way.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::daemon::{folder, is_mount_root};
use crate::support::mount::{Mount, done, kidafs, text, wait_for};
use crate::support::python::python;
use crate::support::situation::{is_in, is_root, run_test_in};
use rustix::process::{Pid, Signal};

/// `kidafs run` as the user types it: supervised.
fn run(dir: &Path, command: &[&str]) -> Command {
    let mut run = kidafs();
    run.env_remove("KIDAFS_SUPERVISE");
    run.arg("run").arg(dir).arg("--").args(command);
    run
}

fn parent(pid: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.unwrap().trim().to_owned()
}

#[test]
fn mount_supervises_unless_it_is_told_not_to() {
    for (options, supervised) in [(&[][..], true), (&["--no-supervise"], false)] {
        let folder = folder();
        let dir = folder.path().join("dir");
        done(
            kidafs()
                .env_remove("KIDAFS_SUPERVISE")
                .arg("mount")
                .args(options)
                .arg(&dir),
        );
        let daemon = fs::read_to_string(dir.join(".kidafs/pid")).unwrap();
        let above = fs::read(format!("/proc/{}/cmdline", parent(&daemon))).unwrap_or_default();
        let is_kidafs = String::from_utf8_lossy(&above).contains("kidafs");
        assert_eq!(is_kidafs, supervised, "{options:?}");
        if supervised {
            done(Command::new("kill").arg("-KILL").arg(daemon.trim()));
            wait_for("another daemon", || {
                let now = fs::read_to_string(dir.join(".kidafs/pid")).ok()?;
                (now != daemon).then_some(())
            });
        }
        done(kidafs().arg("umount").arg(&dir));
    }
}

#[test]
fn run_uses_a_mount_that_is_there_already_and_leaves_it_there() {
    let mount = Mount::new(&[]);
    let before = fs::read_to_string(mount.path(".kidafs/pid")).unwrap();
    let output = run(mount.dir(), &["cat", ".kidafs/pid"])
        .current_dir(mount.dir())
        .output()
        .unwrap();
    assert_eq!(text(&output), format!("exit status: 0\n{before}"));
    assert!(is_mount_root(mount.dir()));
}

#[test]
fn without_fuse_run_runs_the_command_on_the_plain_directory_with_one_warning() {
    const SITUATION: &str = "no-fuse";
    if is_in(SITUATION) {
        let dir = std::env::temp_dir().join("dir");
        let words = ["sh", "-c", "mkdir -p \"$0\"; echo x > \"$0/entry\"; exit 5"];
        let mut command = run(&dir, &words);
        let output = command.arg(&dir).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(5), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("/dev/fuse"), "{said}");
        assert!(said.contains("runs on the plain directory"), "{said}");
        assert_eq!(fs::read_to_string(dir.join("entry")).unwrap(), "x\n");

        let refused = kidafs()
            .args(["run", "--require-mount"])
            .arg(&dir)
            .args(["--", "rm", "-r"])
            .arg(&dir)
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(1));
        assert!(dir.join("entry").exists(), "the command was run");
    } else if is_root() {
        run_test_in(
            SITUATION,
            "chown 0:0 \"$TMPDIR\" && mount --bind /dev/null /dev/fuse && exec",
            "without_fuse_run_runs_the_command_on_the_plain_directory_with_one_warning",
        );
    }
}

#[test]
fn run_passes_on_every_signal_that_can_be_passed_on() {
    let folder = folder();
    let dir = folder.path().join("dir");
    // All that a program can handle and that nothing else sends.
    let names = [
        "HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM", "CONT", "TTIN", "TTOU", "TSTP",
        "VTALRM", "PROF", "IO", "PWR", "XCPU", "XFSZ", "URG", "WINCH", "STKFLT", "RTMIN",
        "RTMAX-1",
    ];
    let script = "import os, signal, sys
def got(number, frame):
    os.write(1, b'%d\\n' % number)
for number in signal.valid_signals() - {9, 13, 17, 19}:
    signal.signal(number, got)
print('up', flush=True)
sys.stdin.readline()
sys.exit(9)";
    let mut child = run(&dir, &["python3", "-I", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "up");
    for name in names {
        let kill = format!("kill -{name} {}; kill -l {name}", child.id());
        let number = done(Command::new("bash").args(["-c", &kill]));
        assert_eq!(next(), number.trim(), "{name}");
        assert!(is_mount_root(&dir), "after {name}");
    }
    drop(child.stdin.take().map(|mut input| {
        use std::io::Write;
        input.write_all(b"end\n")
    }));
    assert_eq!(child.wait().unwrap().code(), Some(9));
    assert!(!is_mount_root(&dir));
}

#[test]
fn run_stops_when_its_command_is_stopped_and_goes_on_with_it() {
    let folder = folder();
    let dir = folder.path().join("dir");
    let mut child = run(
        &dir,
        &["sh", "-c", "echo $$; kill -STOP $$; echo on; exit 4"],
    )
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut inner = String::new();
    out.read_line(&mut inner).unwrap();
    let pid = Pid::from_child(&child);
    let state = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        status
            .lines()
            .any(|line| line.starts_with("State:\tT"))
            .then_some(())
    };
    wait_for("run to stop", state);
    rustix::process::kill_process(pid, Signal::CONT).unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "on\n");
    assert_eq!(child.wait().unwrap().code(), Some(4));
}

#[test]
fn as_the_first_process_of_a_container_run_reaps() {
    if !is_root() {
        return;
    }
    let folder = folder();
    let dir = folder.path().join("dir");
    let script = "for i in 1 2 3 4 5; do (sleep 0.1 &); done; sleep 1; \
                  ps -A -o stat= | grep -c Z; exit 3";
    let mut command = Command::new("unshare");
    command
        .args(["-fpm", "--mount-proc", env!("CARGO_BIN_EXE_kidafs"), "run"])
        .arg(&dir)
        .args(["--", "sh", "-c", script])
        .env("KIDAFS_CONFIG", "/dev/null");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "0\n",
        "{}",
        text(&output)
    );
}

/// A page of each engine, whose cache is the folder that is given.
const PAGES: [(&str, &str); 3] = [
    (
        "kida",
        "from kida import Environment, DictLoader
from kida.bytecode_cache import BytecodeCache
from pathlib import Path
cache = BytecodeCache(Path(folder))
environment = Environment(loader=DictLoader({'a.html': '{{ x }}' * 400}), bytecode_cache=cache)
page = environment.get_template('a.html').render(x=7)",
    ),
    (
        "jinja2",
        "import jinja2
cache = jinja2.FileSystemBytecodeCache(folder)
environment = jinja2.Environment(loader=jinja2.DictLoader({'a.html': '{{ x }}' * 400}), bytecode_cache=cache)
page = environment.get_template('a.html').render(x=7)",
    ),
    (
        "mako",
        "from mako.lookup import TemplateLookup
import os, tempfile
source = tempfile.mkdtemp()
open(os.path.join(source, 'a.html'), 'w').write('${x}' * 400)
page = TemplateLookup([source], module_directory=folder).get_template('a.html').render(x=7)",
    ),
];

/// Whether an engine renders its page with this cache; why not, if not.
fn renders(page: &str, dir: &Path) -> Result<(), String> {
    let script = format!("import sys\nfolder = sys.argv[1]\n{page}\nassert page == '7' * 400");
    let mut command = Command::new(python());
    command.args(["-I", "-B", "-c", &script]).arg(dir);
    let output = command.output().unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(text(&output)),
    }
}

#[test]
fn every_engine_renders_when_the_daemon_has_died_and_is_back() {
    for (engine, page) in PAGES {
        let folder = folder();
        let dir = folder.path().join("dir");
        let mut command = kidafs();
        command
            .env_remove("KIDAFS_SUPERVISE")
            .arg("mount")
            .arg(&dir);
        done(&mut command);
        renders(page, &dir).unwrap();
        let daemon = fs::read_to_string(dir.join(".kidafs/pid")).unwrap();
        done(Command::new("kill").arg("-KILL").arg(daemon.trim()));
        wait_for("another daemon", || {
            let now = fs::read_to_string(dir.join(".kidafs/pid")).ok()?;
            (now != daemon).then_some(())
        });
        renders(page, &dir).unwrap_or_else(|said| panic!("{engine}: {said}"));
        done(kidafs().arg("umount").arg(&dir));
    }
}

#[test]
fn kida_and_jinja2_render_where_nothing_can_be_stored() {
    for options in [
        &["--read-only"][..],
        &["--max-entry", "1KiB"],
        &["--staging", "4KiB", "--max-entry", "4KiB"],
    ] {
        for (engine, page) in &PAGES[..2] {
            let mount = Mount::new(options);
            renders(page, mount.dir())
                .unwrap_or_else(|said| panic!("{engine}, {options:?}: {said}"));
            renders(page, mount.dir())
                .unwrap_or_else(|said| panic!("{engine}, {options:?}: {said}"));
        }
    }
}
