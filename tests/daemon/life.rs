//! A daemon's life, from its start in the background to each of its ends.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::support::daemon::process::{
    Session, arguments, hear, let_it_answer, listen, mount_point,
};
use crate::support::daemon::{FILE_NAME, folder, is_mount_root, unmount_patiently};
use kidafs::daemon::mount;
use kidafs::daemon::mountpoint::{State, inspect};
use kidafs::daemon::serve::BUSY_LIMIT;
use kidafs::daemon::start::{Daemon, Role, StartError, start};
use kidafs::daemon::unmount::Unmounted;
use rustix::process::{Pid, Signal};

const SOON: Duration = Duration::from_secs(20);

/// The argument that follows [`start_process`]'s name if that is to act.
const START_PROCESS: &str = "start_process";

fn start_daemon(folder: &Path) -> Daemon {
    start(Role::Background, arguments(folder, Session::Runs)).unwrap()
}

fn send(daemon: &Daemon, signal: Signal) {
    rustix::process::kill_process(pid(daemon), signal).unwrap();
}

fn pid(daemon: &Daemon) -> Pid {
    Pid::from_raw(i32::try_from(daemon.pid()).unwrap()).unwrap()
}

fn files_of(daemon: &Daemon) -> Vec<PathBuf> {
    (0..3)
        .map(|fd| fs::read_link(format!("/proc/{}/fd/{fd}", daemon.pid())).unwrap())
        .collect()
}

#[test]
fn start_returns_when_the_mount_answers() {
    let folder = folder();
    let _socket = listen(folder.path());
    let dir = mount_point(folder.path());
    let daemon = start_daemon(folder.path());
    assert!(dir.join(FILE_NAME).exists());
    match inspect(&dir).unwrap().state {
        State::Live { pid: found, .. } => assert_eq!(found, Some(pid(&daemon))),
        other => panic!("{other:?}"),
    }
    assert!(daemon.end().unwrap().success());
}

#[test]
fn a_background_daemon_holds_nothing_of_its_starter() {
    let folder = folder();
    let _socket = listen(folder.path());
    let daemon = start_daemon(folder.path());
    assert_eq!(files_of(&daemon), [Path::new("/dev/null"); 3]);
    let proc = PathBuf::from(format!("/proc/{}", daemon.pid()));
    assert_eq!(fs::read_link(proc.join("cwd")).unwrap(), Path::new("/"));
    assert_eq!(fs::read_to_string(proc.join("comm")).unwrap(), "kidafs\n");
    // A session of its own, so that no terminal's signal reaches it.
    let session = rustix::process::getsid(Some(pid(&daemon))).unwrap();
    assert_eq!(session, pid(&daemon));
    assert!(daemon.end().unwrap().success());
}

#[test]
fn sigterm_and_sigint_unmount_write_everything_and_end_well() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = folder();
        let socket = listen(folder.path());
        let daemon = start_daemon(folder.path());
        send(&daemon, signal);
        assert_eq!(hear(&socket), "flush");
        assert_eq!(hear(&socket), "Cleanly");
        assert!(daemon.wait().unwrap().success());
        assert!(!is_mount_root(&mount_point(folder.path())));
    }
}

#[test]
fn an_external_unmount_writes_everything_and_ends_well() {
    let folder = folder();
    let socket = listen(folder.path());
    let daemon = start_daemon(folder.path());
    let dir = mount_point(folder.path());
    assert_eq!(unmount_patiently(&dir, SOON), Unmounted::Ended);
    // It has ended already: unmount waited.
    socket.set_nonblocking(true).unwrap();
    assert_eq!(hear(&socket), "flush");
    assert_eq!(hear(&socket), "Cleanly");
    assert!(daemon.wait().unwrap().success());
}

#[test]
fn told_to_end_while_files_are_open_it_serves_only_those_until_they_are_closed() {
    let folder = folder();
    let socket = listen(folder.path());
    let daemon = start_daemon(folder.path());
    let dir = mount_point(folder.path());
    let mut open = File::open(dir.join(FILE_NAME)).unwrap();
    send(&daemon, Signal::TERM);
    wait_until_unmounted(&dir);
    assert!(!dir.join(FILE_NAME).exists());
    assert_eq!(open.read(&mut [0; 8]).unwrap(), 0);
    drop(open);
    assert_eq!(hear(&socket), "flush");
    assert_eq!(hear(&socket), "Cleanly");
    assert!(daemon.wait().unwrap().success());
}

#[test]
fn a_second_signal_ends_it_at_once_and_open_files_fail() {
    let folder = folder();
    let socket = listen(folder.path());
    let daemon = start_daemon(folder.path());
    let dir = mount_point(folder.path());
    let open = File::open(dir.join(FILE_NAME)).unwrap();
    let begun = Instant::now();
    send(&daemon, Signal::TERM);
    wait_until_unmounted(&dir);
    send(&daemon, Signal::TERM);
    assert_eq!(hear(&socket), "flush");
    assert_eq!(hear(&socket), "Aborted");
    assert!(daemon.wait().unwrap().success());
    assert!(begun.elapsed() < BUSY_LIMIT);
    let flags = rustix::fs::AtFlags::EMPTY_PATH | rustix::fs::AtFlags::STATX_FORCE_SYNC;
    let asked = rustix::fs::statx(&open, "", flags, rustix::fs::StatxFlags::BASIC_STATS);
    assert_eq!(asked.err(), Some(rustix::io::Errno::NOTCONN));
}

#[test]
fn open_files_keep_it_for_a_bounded_time() {
    let folder = folder();
    let socket = listen(folder.path());
    let daemon = start_daemon(folder.path());
    let open = File::open(mount_point(folder.path()).join(FILE_NAME)).unwrap();
    send(&daemon, Signal::TERM);
    assert_eq!(hear(&socket), "flush");
    assert_eq!(hear(&socket), "Aborted");
    assert!(daemon.wait().unwrap().success());
    drop(open);
}

#[test]
fn sigusr1_sweeps_and_sighup_does_not_end_it() {
    let folder = folder();
    let socket = listen(folder.path());
    let daemon = start_daemon(folder.path());
    send(&daemon, Signal::HUP);
    send(&daemon, Signal::USR1);
    assert_eq!(hear(&socket), "sweep");
    assert!(mount_point(folder.path()).join(FILE_NAME).exists());
    assert!(daemon.end().unwrap().success());
}

#[test]
fn a_killed_daemons_mount_is_told_although_its_attributes_are_cached() {
    let folder = folder();
    let _socket = listen(folder.path());
    let dir = mount_point(folder.path());
    let daemon = start_daemon(folder.path());
    dir.metadata().unwrap();
    send(&daemon, Signal::KILL);
    assert_eq!(daemon.wait().unwrap().signal(), Some(9));
    // The trap: the kernel goes on answering for it.
    assert!(dir.metadata().is_ok());
    assert!(matches!(inspect(&dir).unwrap().state, State::Dead(_)));
    assert_eq!(mount::clear(&dir).unwrap().unwrap(), dir);
    assert!(!is_mount_root(&dir));
}

#[test]
fn the_next_daemon_starts_over_a_killed_one() {
    let folder = folder();
    let _socket = listen(folder.path());
    for _ in 0..2 {
        let daemon = start_daemon(folder.path());
        send(&daemon, Signal::KILL);
        daemon.wait().unwrap();
    }
    let daemon = start_daemon(folder.path());
    assert!(mount_point(folder.path()).join(FILE_NAME).exists());
    assert!(daemon.end().unwrap().success());
    assert!(!is_mount_root(&mount_point(folder.path())));
}

#[test]
fn a_daemon_that_cannot_serve_is_a_failed_start() {
    let folder = folder();
    let _socket = listen(folder.path());
    let first = start_daemon(folder.path());
    let second = start(Role::Background, arguments(folder.path(), Session::Runs));
    assert!(matches!(second, Err(StartError::Failed(status)) if status.code() == Some(1)));
    assert!(mount_point(folder.path()).join(FILE_NAME).exists());
    assert!(first.end().unwrap().success());
}

#[test]
fn a_session_that_fails_or_panics_leaves_the_plain_directory() {
    for how in [Session::Fails, Session::Panics] {
        let folder = folder();
        let socket = listen(folder.path());
        let daemon = start(Role::Background, arguments(folder.path(), how)).unwrap();
        assert_eq!(hear(&socket), "flush");
        assert_eq!(daemon.wait().unwrap().code(), Some(1));
        assert!(!is_mount_root(&mount_point(folder.path())));
    }
}

#[test]
fn in_the_foreground_a_service_manager_is_told_of_the_start_and_the_end() {
    let folder = folder();
    let socket = listen(folder.path());
    let daemon = in_foreground(folder.path(), Session::Runs, "true");
    daemon.await_ready();
    assert!(mount_point(folder.path()).join(FILE_NAME).exists());
    let id = Pid::from_child(&daemon.process);
    rustix::process::kill_process(id, Signal::TERM).unwrap();
    assert_eq!(hear(&daemon.notices), "STOPPING=1\n");
    assert_eq!(hear(&socket), "flush");
    assert!(daemon.end().0.success());
}

#[test]
fn what_cannot_be_written_at_the_end_is_told_and_the_mount_is_gone_all_the_same() {
    let folder = folder();
    let socket = listen(folder.path());
    let daemon = in_foreground(folder.path(), Session::LosesSomething, "true");
    daemon.await_ready();
    assert_eq!(
        unmount_patiently(&mount_point(folder.path()), SOON),
        Unmounted::Ended
    );
    assert_eq!(hear(&socket), "flush");
    let (status, said) = daemon.end();
    assert_eq!(status.code(), Some(1));
    let expected = "not everything could be written to the backing directory: the disk is full";
    assert!(said.contains(expected), "{said}");
    assert!(!is_mount_root(&mount_point(folder.path())));
}

#[test]
fn it_may_have_as_many_files_open_as_its_user_may() {
    let folder = folder();
    let _socket = listen(folder.path());
    let daemon = in_foreground(folder.path(), Session::Runs, "ulimit -Sn 100");
    daemon.await_ready();
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.process.id())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words: Vec<_> = files.unwrap().split_whitespace().collect();
    let (soft, hard) = (words[3], words[4]);
    assert_eq!(soft, hard);
    assert_ne!(soft, "100");
    let id = Pid::from_child(&daemon.process);
    rustix::process::kill_process(id, Signal::TERM).unwrap();
    assert!(daemon.end().0.success());
}

#[test]
fn if_the_starter_is_interrupted_the_daemon_takes_its_mount_back() {
    let folder = folder();
    let socket = listen(folder.path());
    let mut starter = Command::new(std::env::current_exe().unwrap())
        .args(["-q", "--exact", "life::start_process", START_PROCESS])
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(hear(&socket), "waiting");
    assert!(is_mount_root(&mount_point(folder.path())));
    starter.kill().unwrap();
    starter.wait().unwrap();
    let_it_answer(folder.path());
    assert_eq!(hear(&socket), "flush");
    assert!(!is_mount_root(&mount_point(folder.path())));
}

/// Not a test: a command that starts a daemon in the background, and has to wait for it.
#[test]
fn start_process() {
    let mut words = std::env::args_os().skip_while(|it| it != START_PROCESS);
    if let Some(folder) = words.nth(1) {
        let arguments = arguments(Path::new(&folder), Session::Waits);
        start(Role::Background, arguments).unwrap();
    }
}

/// A daemon in the foreground, under a service manager's eyes.
struct InForeground {
    process: Child,
    notices: UnixDatagram,
}

/// Starts one in a shell that runs `before` first.
fn in_foreground(folder: &Path, session: Session, before: &str) -> InForeground {
    let manager = folder.join("manager");
    let notices = UnixDatagram::bind(&manager).unwrap();
    notices.set_read_timeout(Some(SOON)).unwrap();
    let process = Command::new("sh")
        .args(["-c", &format!("{before} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(arguments(folder, session))
        .env("NOTIFY_SOCKET", &manager)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    InForeground { process, notices }
}

impl InForeground {
    fn await_ready(&self) {
        assert_eq!(hear(&self.notices), "READY=1\n");
    }

    /// Waits for its end: its exit status, and what it said on standard error.
    fn end(self) -> (ExitStatus, String) {
        let output = self.process.wait_with_output().unwrap();
        (
            output.status,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}

/// Returns when `dir` is no mount point any more; the kernel tells of every change.
fn wait_until_unmounted(dir: &Path) {
    let table = File::open("/proc/self/mountinfo").unwrap();
    let end = Instant::now() + SOON;
    while is_mount_root(dir) {
        assert!(Instant::now() < end, "it is still mounted");
        let timeout = rustix::event::Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        let mut changes = [rustix::event::PollFd::new(
            &table,
            rustix::event::PollFlags::PRI,
        )];
        rustix::event::poll(&mut changes, Some(&timeout)).unwrap();
    }
}

#[test]
fn an_ordinary_user_has_the_same_promises() {
    crate::support::situation::run_as_ordinary_user();
}
