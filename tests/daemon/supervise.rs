//! `--supervise`: a daemon that died is started again; one that was told to end is not.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::support::daemon::process::{
    Session, arguments, hear, let_it_answer, listen, log_file, mount_point, supervised_arguments,
};
use crate::support::daemon::{FILE_NAME, folder, is_mount_root, unmount_patiently};
use kidafs::daemon::mountpoint::{State, inspect};
use kidafs::daemon::start::{Daemon, Role, StartError, start};
use kidafs::daemon::supervise::MOST_DEATHS;
use kidafs::daemon::unmount::{Unmounted, unmount};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

const SOON: Duration = Duration::from_secs(20);

/// The argument that follows [`start_process`]'s name if that is to act.
const START_PROCESS: &str = "start_process";

/// Starts a supervisor, and by it a daemon, in the background.
fn start_supervisor(folder: &Path, session: Session) -> Daemon {
    start(Role::Background, supervised_arguments(folder, session)).unwrap()
}

/// The same in the foreground, as a service manager does.
fn start_in_foreground(folder: &Path, session: Session, manager: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(supervised_arguments(folder, session))
        .env("NOTIFY_SOCKET", manager)
        .stdout(Stdio::null())
        .stderr(File::create(folder.join("terminal")).unwrap())
        .spawn()
        .unwrap()
}

/// The daemon, which is not the process that was started.
fn daemon_of(dir: &Path) -> Pid {
    match inspect(dir).unwrap().state {
        State::Live { pid, .. } => pid.unwrap(),
        other => panic!("{other:?}"),
    }
}

fn pid(daemon: &Daemon) -> Pid {
    Pid::from_raw(i32::try_from(daemon.pid()).unwrap()).unwrap()
}

fn send(pid: Pid, signal: Signal) {
    rustix::process::kill_process(pid, signal).unwrap();
}

/// A process that is nobody's child here, to be waited for.
fn process(pid: Pid) -> OwnedFd {
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap()
}

fn has_ended(process: &OwnedFd) -> bool {
    let at_once = Timespec::default();
    let mut ends = [PollFd::new(process, PollFlags::IN)];
    rustix::event::poll(&mut ends, Some(&at_once)).unwrap() == 1
}

/// How it ended, within the time in which it must.
fn end_of(supervisor: Daemon) -> ExitStatus {
    wait_for(&process(pid(&supervisor)));
    supervisor.wait().unwrap()
}

fn end_of_child(mut supervisor: Child) -> ExitStatus {
    wait_for(&process(Pid::from_child(&supervisor)));
    supervisor.wait().unwrap()
}

fn wait_for(process: &OwnedFd) {
    let limit = Timespec::try_from(SOON).unwrap();
    let mut ends = [PollFd::new(process, PollFlags::IN)];
    let ended = rustix::event::poll(&mut ends, Some(&limit)).unwrap();
    assert_eq!(ended, 1, "it has not ended");
}

/// Returns what `found` finds; asked again whenever something was mounted or unmounted.
fn wait_until<T>(found: impl Fn() -> Option<T>) -> T {
    let table = File::open("/proc/self/mountinfo").unwrap();
    let end = Instant::now() + SOON;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < end, "it does not come about");
        let limit = Timespec::try_from(Duration::from_secs(1)).unwrap();
        let mut changes = [PollFd::new(&table, PollFlags::PRI)];
        rustix::event::poll(&mut changes, Some(&limit)).unwrap();
    }
}

/// The daemon that serves `dir` after `before` was killed.
fn next_daemon(dir: &Path, before: Pid) -> Pid {
    wait_until(|| match inspect(dir).unwrap().state {
        State::Live { pid, .. } => pid.filter(|pid| *pid != before),
        _ => None,
    })
}

fn log(folder: &Path) -> String {
    fs::read_to_string(log_file(folder)).unwrap()
}

fn assert_plain(dir: &Path) {
    assert!(!is_mount_root(dir));
    assert_eq!(inspect(dir).unwrap().state, State::Directory);
    fs::write(dir.join("written by the engine"), "").unwrap();
}

#[test]
fn a_daemon_that_was_killed_is_started_again_and_again() {
    let folder = folder();
    let _socket = listen(folder.path());
    let dir = mount_point(folder.path());
    let supervisor = start_supervisor(folder.path(), Session::Runs);
    let mut daemon = daemon_of(&dir);
    assert_ne!(daemon, pid(&supervisor));
    for signal in [Signal::KILL, Signal::KILL, Signal::ABORT] {
        send(daemon, signal);
        daemon = next_daemon(&dir, daemon);
        assert!(dir.join(FILE_NAME).exists());
    }
    let log = log(folder.path());
    assert!(log.contains("SIGKILL") && log.contains("SIGABRT"), "{log}");
    assert!(log.contains("is served again"), "{log}");
    assert!(supervisor.end().unwrap().success());
    assert_plain(&dir);
}

#[test]
fn one_whose_session_failed_is_started_again_until_the_supervisor_gives_up() {
    let folder = folder();
    let socket = listen(folder.path());
    let dir = mount_point(folder.path());
    let supervisor = start_supervisor(folder.path(), Session::Fails);
    for _ in 0..MOST_DEATHS {
        assert_eq!(hear(&socket), "flush");
    }
    assert_eq!(end_of(supervisor).code(), Some(1));
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0]).is_err(), "there was one more");
    assert_plain(&dir);
    let log = log(folder.path());
    let last: Vec<_> = log
        .lines()
        .filter(|line| line.contains("giving up"))
        .collect();
    assert_eq!(last.len(), 1, "{log}");
    assert!(last[0].contains(dir.to_str().unwrap()), "{log}");
    assert!(last[0].contains("look at the log"), "{log}");
    // In the log, a pass whose limit nobody knew would look the same.
    let deaths = log.lines().filter(|line| line.contains(" died ")).count();
    assert_eq!(deaths, MOST_DEATHS as usize, "{log}");
}

#[test]
fn one_that_does_not_start_the_first_time_is_not_started_again() {
    let folder = folder();
    let _socket = listen(folder.path());
    let first = start(Role::Background, arguments(folder.path(), Session::Runs)).unwrap();
    let refused = start(
        Role::Background,
        supervised_arguments(folder.path(), Session::Runs),
    );
    assert!(matches!(refused, Err(StartError::Failed(_))), "{refused:?}");
    assert!(mount_point(folder.path()).join(FILE_NAME).exists());
    assert!(first.end().unwrap().success());
}

#[test]
fn an_unmount_ends_both() {
    let folder = folder();
    let socket = listen(folder.path());
    let dir = mount_point(folder.path());
    let supervisor = start_supervisor(folder.path(), Session::Runs);
    assert_eq!(unmount_patiently(&dir, SOON), Unmounted::Ended);
    assert_eq!(hear(&socket), "flush");
    assert_eq!(hear(&socket), "Cleanly");
    assert!(end_of(supervisor).success());
    assert_plain(&dir);
}

#[test]
fn a_signal_to_the_supervisor_or_to_the_daemon_ends_both() {
    for signal in [Signal::TERM, Signal::INT] {
        for to_the_daemon in [false, true] {
            let folder = folder();
            let socket = listen(folder.path());
            let dir = mount_point(folder.path());
            let supervisor = start_supervisor(folder.path(), Session::Runs);
            let daemon = daemon_of(&dir);
            let ended = process(daemon);
            let told = if to_the_daemon {
                daemon
            } else {
                pid(&supervisor)
            };
            send(told, signal);
            assert_eq!(hear(&socket), "flush");
            assert_eq!(hear(&socket), "Cleanly");
            assert!(end_of(supervisor).success());
            wait_for(&ended);
            assert_plain(&dir);
        }
    }
}

#[test]
fn a_second_signal_is_passed_on_and_open_files_fail() {
    let folder = folder();
    let socket = listen(folder.path());
    let dir = mount_point(folder.path());
    let supervisor = start_supervisor(folder.path(), Session::Runs);
    let open = File::open(dir.join(FILE_NAME)).unwrap();
    send(pid(&supervisor), Signal::TERM);
    wait_until(|| (!is_mount_root(&dir)).then_some(()));
    send(pid(&supervisor), Signal::TERM);
    assert_eq!(hear(&socket), "flush");
    assert_eq!(hear(&socket), "Aborted");
    assert!(end_of(supervisor).success());
    drop(open);
}

#[test]
fn one_that_ended_as_told_but_could_not_write_everything_is_told_and_not_started_again() {
    let folder = folder();
    let socket = listen(folder.path());
    let dir = mount_point(folder.path());
    let supervisor = start_supervisor(folder.path(), Session::LosesSomething);
    unmount_patiently(&dir, SOON);
    assert_eq!(hear(&socket), "flush");
    assert_eq!(end_of(supervisor).code(), Some(1));
    assert_plain(&dir);
    let log = log(folder.path());
    assert!(log.contains("the disk is full"), "{log}");
    assert!(log.contains("did not end well"), "{log}");
}

#[test]
fn one_that_was_killed_after_it_was_detached_is_not_mounted_again() {
    let folder = folder();
    let _socket = listen(folder.path());
    let dir = mount_point(folder.path());
    let supervisor = start_supervisor(folder.path(), Session::Runs);
    let daemon = daemon_of(&dir);
    let open = File::open(dir.join(FILE_NAME)).unwrap();
    assert_eq!(unmount(&dir, true, SOON).unwrap(), Unmounted::Detached);
    send(daemon, Signal::KILL);
    assert!(end_of(supervisor).success());
    assert_plain(&dir);
    drop(open);
}

#[test]
fn if_the_supervisor_is_killed_the_daemon_goes_on() {
    let folder = folder();
    let socket = listen(folder.path());
    let dir = mount_point(folder.path());
    let supervisor = start_supervisor(folder.path(), Session::Runs);
    send(pid(&supervisor), Signal::KILL);
    assert_eq!(end_of(supervisor).signal(), Some(9));
    assert!(dir.join(FILE_NAME).exists());
    assert_eq!(unmount_patiently(&dir, SOON), Unmounted::Ended);
    assert_eq!(hear(&socket), "flush");
    assert_eq!(hear(&socket), "Cleanly");
}

#[test]
fn if_the_supervisor_of_run_is_killed_the_daemon_ends() {
    let folder = folder();
    let socket = listen(folder.path());
    let dir = mount_point(folder.path());
    let arguments = supervised_arguments(folder.path(), Session::Runs);
    let supervisor = start(Role::Attached, arguments).unwrap();
    assert_ne!(daemon_of(&dir), pid(&supervisor));
    send(pid(&supervisor), Signal::KILL);
    assert_eq!(hear(&socket), "flush");
    assert_eq!(hear(&socket), "Cleanly");
    end_of(supervisor);
    assert_plain(&dir);
}

#[test]
fn between_deaths_a_signal_ends_it() {
    let folder = folder();
    let socket = listen(folder.path());
    let dir = mount_point(folder.path());
    let supervisor = start_supervisor(folder.path(), Session::Fails);
    for _ in 0..MOST_DEATHS / 4 {
        assert_eq!(hear(&socket), "flush");
    }
    send(pid(&supervisor), Signal::TERM);
    // Those that are started until then have somebody to tell.
    let process = process(pid(&supervisor));
    socket
        .set_read_timeout(Some(Duration::from_millis(10)))
        .unwrap();
    while !has_ended(&process) {
        let _ = socket.recv(&mut [0; 8]);
    }
    end_of(supervisor);
    assert_plain(&dir);
    let log = log(folder.path());
    assert!(!log.contains("giving up"), "{log}");
}

#[test]
fn told_to_end_while_the_daemon_starts_both_end_and_nobody_is_told_that_it_is_ready() {
    let folder = folder();
    let socket = listen(folder.path());
    let manager = folder.path().join("manager");
    let notices = UnixDatagram::bind(&manager).unwrap();
    let supervisor = start_in_foreground(folder.path(), Session::Waits, &manager);
    assert_eq!(hear(&socket), "waiting");
    send(Pid::from_child(&supervisor), Signal::TERM);
    // That it has begun to end is told before the daemon is.
    assert_eq!(hear(&notices), "STOPPING=1\n");
    let_it_answer(folder.path());
    assert_eq!(hear(&socket), "flush");
    assert_eq!(hear(&socket), "Cleanly");
    assert!(end_of_child(supervisor).success());
    assert_plain(&mount_point(folder.path()));
    notices.set_nonblocking(true).unwrap();
    assert!(notices.recv(&mut [0]).is_err(), "it was told more");
}

#[test]
fn if_the_starter_is_interrupted_both_end() {
    let folder = folder();
    let socket = listen(folder.path());
    let mut starter = start_process_for(folder.path(), Session::Waits)
        .spawn()
        .unwrap();
    assert_eq!(hear(&socket), "waiting");
    starter.kill().unwrap();
    starter.wait().unwrap();
    let_it_answer(folder.path());
    assert_eq!(hear(&socket), "flush");
    assert_eq!(hear(&socket), "Cleanly");
    assert_plain(&mount_point(folder.path()));
}

#[test]
fn in_the_background_both_hold_nothing_of_the_starter() {
    let folder = folder();
    let _socket = listen(folder.path());
    let supervisor = start_supervisor(folder.path(), Session::Runs);
    let daemon = daemon_of(&mount_point(folder.path()));
    for pid in [pid(&supervisor), daemon] {
        let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        let streams: Vec<_> = (0..3)
            .map(|fd| fs::read_link(proc.join(format!("fd/{fd}"))).unwrap())
            .collect();
        let nothing = PathBuf::from("/dev/null");
        let expected = [nothing.clone(), nothing, log_file(folder.path())];
        assert_eq!(streams, expected);
        assert_eq!(fs::read_link(proc.join("cwd")).unwrap(), Path::new("/"));
        assert_eq!(fs::read_to_string(proc.join("comm")).unwrap(), "kidafs\n");
        assert_eq!(rustix::process::getsid(Some(pid)).unwrap(), pid);
    }
    assert!(supervisor.end().unwrap().success());
}

#[test]
fn sigusr1_is_passed_on() {
    let folder = folder();
    let socket = listen(folder.path());
    let supervisor = start_supervisor(folder.path(), Session::Runs);
    send(pid(&supervisor), Signal::USR1);
    assert_eq!(hear(&socket), "sweep");
    assert!(supervisor.end().unwrap().success());
}

#[test]
fn a_service_manager_is_told_once_and_by_the_supervisor() {
    let folder = folder();
    let _socket = listen(folder.path());
    let dir = mount_point(folder.path());
    let manager = folder.path().join("manager");
    let notices = UnixDatagram::bind(&manager).unwrap();
    notices.set_read_timeout(Some(SOON)).unwrap();
    let supervisor = start_in_foreground(folder.path(), Session::Runs, &manager);
    assert_eq!(hear(&notices), "READY=1\n");
    let daemon = daemon_of(&dir);
    send(daemon, Signal::KILL);
    let daemon = next_daemon(&dir, daemon);
    // In the foreground, what both say is seen there.
    let terminal = folder.path().join("terminal");
    let log = format!("/proc/{}/fd/2", daemon.as_raw_nonzero());
    assert_eq!(fs::read_link(log).unwrap(), terminal);
    send(Pid::from_child(&supervisor), Signal::TERM);
    assert_eq!(hear(&notices), "STOPPING=1\n");
    assert!(end_of_child(supervisor).success());
    notices.set_nonblocking(true).unwrap();
    assert!(notices.recv(&mut [0]).is_err(), "it was told more");
    let said = fs::read_to_string(&terminal).unwrap();
    assert!(said.contains("SIGKILL"), "{said}");
}

#[test]
fn in_the_background_a_service_manager_is_told_the_supervisors_process_id() {
    let folder = folder();
    let _socket = listen(folder.path());
    let manager = folder.path().join("manager");
    let notices = UnixDatagram::bind(&manager).unwrap();
    notices.set_read_timeout(Some(SOON)).unwrap();
    let mut starter = start_process_for(folder.path(), Session::Runs);
    let started = starter.env("NOTIFY_SOCKET", &manager).status().unwrap();
    assert!(started.success());
    let told = hear(&notices);
    let daemon = daemon_of(&mount_point(folder.path()));
    let supervisor = parent_of(daemon);
    let expected = format!("MAINPID={}\nREADY=1\n", supervisor.as_raw_nonzero());
    assert_eq!(told, expected);
    let ended = process(supervisor);
    send(supervisor, Signal::TERM);
    wait_for(&ended);
}

#[test]
fn an_ordinary_user_has_the_same_promises() {
    crate::support::situation::run_as_ordinary_user();
}

/// Not a test: a command that starts a supervisor in the background and ends.
#[test]
fn start_process() {
    let arguments: Vec<_> = std::env::args_os().collect();
    let Some(at) = arguments.iter().position(|it| it == START_PROCESS) else {
        return;
    };
    if let Some(folder) = arguments.get(at + 1) {
        let session = if arguments.contains(&"Waits".into()) {
            Session::Waits
        } else {
            Session::Runs
        };
        start_supervisor(Path::new(folder), session);
    }
}

fn start_process_for(folder: &Path, session: Session) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["-q", "--exact", "supervise::start_process", START_PROCESS])
        .arg(folder)
        .arg(format!("{session:?}"))
        .stdout(Stdio::null());
    command
}

fn parent_of(pid: Pid) -> Pid {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    Pid::from_raw(parent.unwrap().trim().parse().unwrap()).unwrap()
}
