//! `run`: a mount for as long as a command runs, with the command's streams, signals and status.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::daemon::process::{Session, arguments, hear, listen, mount_point};
use crate::support::daemon::{FILE_NAME, folder, is_mount_root};
use kidafs::daemon::mountpoint::{State, inspect};
use kidafs::daemon::run::{RunError, run, start};
use kidafs::daemon::start::StartError;
use rustix::process::{Pid, Signal};

/// The argument that follows [`run_process`]'s name if that is to act.
const RUN_PROCESS: &str = "run_process";

/// Not a test: `kidafs run` as a process of its own, for tests that signal it.
#[test]
fn run_process() {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let Some(at) = arguments
        .iter()
        .position(|argument| argument == RUN_PROCESS)
    else {
        return;
    };
    if let Some(folder) = arguments.get(at + 1) {
        let command = waiting_command();
        std::process::exit(run_on(Path::new(folder), command).unwrap().into());
    }
}

/// Says that it is up, then waits for the end of its standard input.
fn waiting_command() -> Command {
    shell("echo up; exec cat")
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn run_on(folder: &Path, command: Command) -> Result<u8, RunError> {
    let daemon = start(arguments(folder, Session::Runs)).unwrap();
    run(&mount_point(folder), daemon, command)
}

fn start_run(folder: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "-q",
            "--nocapture",
            "--exact",
            "run::run_process",
            RUN_PROCESS,
        ])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap() == "up"),
        "the command did not start"
    );
    child
}

fn send(child: &Child, signal: Signal) {
    rustix::process::kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn the_command_runs_on_the_mount_and_its_status_is_returned() {
    let folder = folder();
    let socket = listen(folder.path());
    let mut command = shell("test -e \"$0\" && exit 7");
    command.arg(mount_point(folder.path()).join(FILE_NAME));
    assert_eq!(run_on(folder.path(), command).unwrap(), 7);
    assert_eq!(hear(&socket), "flush");
    assert_eq!(hear(&socket), "Cleanly");
    assert!(!is_mount_root(&mount_point(folder.path())));
}

#[test]
fn a_command_killed_by_a_signal_has_a_shells_status_for_it() {
    let folder = folder();
    let _socket = listen(folder.path());
    assert_eq!(
        run_on(folder.path(), shell("kill -TERM $$")).unwrap(),
        128 + 15
    );
}

#[test]
fn the_command_has_the_callers_umask() {
    let folder = folder();
    let _socket = listen(folder.path());
    let out = folder.path().join("umask");
    let mut command = shell("umask > \"$0\"");
    command.arg(&out);
    assert_eq!(run_on(folder.path(), command).unwrap(), 0);
    let ours = shell("umask").output().unwrap().stdout;
    assert_eq!(std::fs::read(&out).unwrap(), ours);
}

#[test]
fn a_command_that_cannot_be_run_is_told_as_shells_tell_it_and_nothing_stays_mounted() {
    let folder = folder();
    let _socket = listen(folder.path());
    for (command, code) in [("/nonexistent/command", 127), ("/etc/passwd", 126)] {
        let error = run_on(folder.path(), Command::new(command)).unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(error.to_string().contains(command), "{error}");
        assert!(!is_mount_root(&mount_point(folder.path())));
    }
}

#[test]
fn sigterm_is_passed_on_and_the_mount_is_gone_afterwards() {
    for (signal, status) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let folder = folder();
        let socket = listen(folder.path());
        let mut child = start_run(folder.path());
        send(&child, signal);
        // Child::wait would close the standard input and so end the command by itself.
        let input = child.stdin.take();
        assert_eq!(child.wait().unwrap().code(), Some(status));
        drop(input);
        assert_eq!(hear(&socket), "flush");
        assert_eq!(hear(&socket), "Cleanly");
        assert!(!is_mount_root(&mount_point(folder.path())));
    }
}

#[test]
fn the_daemon_ends_even_if_run_itself_is_killed() {
    let folder = folder();
    let socket = listen(folder.path());
    let dir = mount_point(folder.path());
    let mut child = start_run(folder.path());
    assert!(matches!(inspect(&dir).unwrap().state, State::Live { .. }));
    send(&child, Signal::KILL);
    child.wait().unwrap();
    assert_eq!(hear(&socket), "flush");
    assert_eq!(hear(&socket), "Cleanly");
    assert!(!is_mount_root(&dir));
}

#[test]
fn a_mount_that_cannot_be_made_is_told_to_whoever_starts_it() {
    let folder = folder();
    let _socket = listen(folder.path());
    std::fs::remove_dir(mount_point(folder.path())).unwrap();
    let error = start(arguments(folder.path(), Session::Runs)).unwrap_err();
    assert!(matches!(error, StartError::Refused(_)), "{error:?}");
}

#[test]
fn an_ordinary_user_has_the_same_promises() {
    crate::support::situation::run_as_ordinary_user();
}
