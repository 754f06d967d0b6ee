//! A mount ends when it is told to: after any number of requests, however it is told, whatever it is doing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::daemon::{Folder, folder, is_mount_root};
use crate::support::entries::{Random, content};
use crate::support::live::{size, store, until};
use crate::support::loopfs::{Kind, LoopFs};
use crate::support::mount::{Mount, SOON, kidafs, text, wait_for};
use crate::support::situation::{is_in, is_root, run_test_in};
use rustix::process::{Pid, Signal};

/// What is promised for an end. A machine that is busy with other tests may take longer for a few of many.
const PROMISED: Duration = Duration::from_secs(2);

/// How a daemon is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Umount,
    Umount8,
    Fusermount,
    Term,
    Interrupt,
    /// The end of `kidafs run`.
    Run,
}

const WAYS: [Way; 6] = [
    Way::Umount,
    Way::Umount8,
    Way::Fusermount,
    Way::Term,
    Way::Interrupt,
    Way::Run,
];

/// What is asked of a mount in its life: a shell's line, so that `kidafs run` can do it as well.
const REQUESTS: [&str; 9] = [
    "test -d .",
    "test ! -e nothing",
    "echo content > file",
    "ls -l",
    "cat .kidafs/stats.json",
    "mkdir -p sub",
    "echo content > tmpabcdefgh; mv tmpabcdefgh entry",
    "df .",
    "rm -f file entry",
];

/// A daemon in the foreground, which tells its status.
struct Foreground {
    child: Child,
    dir: PathBuf,
    _folder: Folder,
}

impl Foreground {
    /// Starts it and returns once its mount is in the kernel's table, which is before it answers.
    fn start(options: &[&str]) -> Self {
        Self::prepared(options, |_| {})
    }

    fn prepared(options: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let folder = folder();
        let dir = folder.path().join("cache");
        fs::create_dir(&dir).unwrap();
        prepare(&dir);
        let child = kidafs()
            .args(["mount", "--foreground"])
            .args(options)
            .arg(&dir)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        until("the mount", SOON, || is_mount_root(&dir));
        Self {
            child,
            dir,
            _folder: folder,
        }
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its end, and how long that took.
    fn end(mut self) -> (Output, Duration) {
        let began = Instant::now();
        let status: ExitStatus = wait_for("the daemon's end", || self.child.try_wait().unwrap());
        let took = began.elapsed();
        let mut stderr = Vec::new();
        std::io::Read::read_to_end(&mut self.child.stderr.take().unwrap(), &mut stderr).unwrap();
        assert!(!is_mount_root(&self.dir), "it is mounted still");
        let output = Output {
            status,
            stdout: Vec::new(),
            stderr,
        };
        (output, took)
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs an unmounting command. A process that a test beside this one is just starting holds this process's
/// descriptors until it runs its program, and so may keep the mount busy for a moment.
fn unmount_by(program: &str, arguments: &[&str], dir: &Path) {
    wait_for("the unmount", || {
        let mut command = match program {
            "kidafs" => kidafs(),
            program => Command::new(program),
        };
        let output = command.args(arguments).arg(dir).output().unwrap();
        let said = text(&output);
        let busy = said.contains("busy") || said.contains("in use");
        assert!(output.status.success() || busy, "{said}");
        output.status.success().then_some(())
    });
}

fn supervised(yes: bool) -> &'static str {
    if yes {
        "--supervise"
    } else {
        "--supervise=false"
    }
}

/// A life: requests, then an end. Returns how long the end took.
fn live(way: Way, threads: u64, supervise: bool, requests: &[&str]) -> Duration {
    let threads = format!("--threads={threads}");
    let script = requests.join("; ");
    let (output, took) = if way == Way::Run {
        let folder = folder();
        let mut command = kidafs();
        command.args(["run", &threads]).arg(folder.path().join("d"));
        let script = format!(
            "cd {}/d; {script}\ncd /; date +%s%N",
            folder.path().display()
        );
        let output = command.args(["--", "sh", "-c", &script]).output().unwrap();
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let ended: u64 = said.lines().last().unwrap().parse().unwrap();
        (output, now.saturating_sub(Duration::from_nanos(ended)))
    } else {
        let life = Foreground::start(&[&threads, supervised(supervise)]);
        let asked = Command::new("sh")
            .args(["-c", &script])
            .current_dir(if requests.is_empty() {
                Path::new("/")
            } else {
                &life.dir
            })
            .stdout(Stdio::null())
            .status();
        assert!(asked.unwrap().success(), "{script}");
        match way {
            Way::Umount => unmount_by("kidafs", &["umount"], &life.dir),
            Way::Umount8 => unmount_by("umount", &[], &life.dir),
            Way::Fusermount => unmount_by("fusermount3", &["-u"], &life.dir),
            Way::Term => life.signal(Signal::TERM),
            Way::Interrupt => life.signal(Signal::INT),
            Way::Run => unreachable!("it is no daemon in the foreground"),
        }
        life.end()
    };
    let said = text(&output);
    assert!(
        output.status.success(),
        "{way:?} {threads} {script}: {said}"
    );
    assert!(
        !said.contains("badly"),
        "{way:?} {threads} {script}: {said}"
    );
    took
}

/// Whether umount(8) and an unsupervised daemon's `fusermount3` may be used: they need root, or the daemon's user.
fn ways() -> Vec<Way> {
    let ordinary = |way: &Way| is_root() || *way != Way::Umount8;
    WAYS.into_iter().filter(ordinary).collect()
}

fn assert_in_time(took: &[Duration]) {
    let late = took.iter().filter(|took| **took > PROMISED).count();
    assert!(
        late * 20 <= took.len(),
        "{late} of {}: {took:?}",
        took.len()
    );
}

#[test]
fn a_mount_ends_after_no_request_one_or_two_however_it_is_told_to() {
    let mut took = Vec::new();
    for way in ways() {
        for requests in 0..=2 {
            let requests = vec!["test -d ."; requests];
            took.push(live(way, 1, requests.len() == 1, &requests));
        }
    }
    assert_in_time(&took);
}

#[test]
fn short_lives_of_random_requests_end_in_each_random_way() {
    let lives = size("KIDAFS_TEST_LIVES", 200);
    let (ways, next) = (ways(), AtomicUsize::new(0));
    let one = |number: usize| {
        let mut random = Random(number as u64);
        let way = ways[random.below(ways.len() as u64) as usize];
        let (threads, supervise) = (1 + random.below(4), random.below(2) == 0);
        let requests: Vec<_> = (0..random.below(6))
            .map(|_| REQUESTS[random.below(REQUESTS.len() as u64) as usize])
            .collect();
        live(way, threads, supervise, &requests)
    };
    let took = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
                    numbers
                        .take_while(|number| *number < lives)
                        .map(one)
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let all = workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap());
        all.collect::<Vec<_>>()
    });
    assert_eq!(took.len(), lives);
    assert_in_time(&took);
}

/// Fills a directory with files that a daemon may evict.
fn fill(dir: &Path, files: usize) {
    let content = content(1, 600);
    for number in 0..files {
        let name = format!("__kida_py314_{number}_0123456789abcdef.pyc");
        fs::write(dir.join(name), &content).unwrap();
    }
}

#[test]
fn an_end_while_the_directory_is_read_in_is_obeyed_at_once() {
    // umount(8) waits for an answer to its own look at the directory before it does anything.
    for way in [Way::Term, Way::Umount] {
        let folder = folder();
        let dir = folder.path().join("cache");
        fs::create_dir(&dir).unwrap();
        fill(&dir, 5_000);
        // Each file takes 2 milliseconds to look at: 10 seconds in all.
        let mut traced = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=newfstatat"])
            .args(["-e", "inject=newfstatat:delay_exit=2000"])
            .arg(kidafs().get_program())
            .args(["mount", "--foreground", "--supervise=false"])
            .arg(&dir)
            .env("KIDAFS_CONFIG", "/dev/null")
            .spawn()
            .unwrap();
        until("the mount", SOON, || is_mount_root(&dir));
        let began = Instant::now();
        match way {
            Way::Umount => unmount_by("kidafs", &["umount"], &dir),
            _ => {
                let tracer = traced.id();
                let children = format!("/proc/{tracer}/task/{tracer}/children");
                let child = fs::read_to_string(children).unwrap();
                let child = Pid::from_raw(child.trim().parse().unwrap()).unwrap();
                rustix::process::kill_process(child, Signal::TERM).unwrap();
            }
        }
        let status = wait_for("the daemon's end", || traced.try_wait().unwrap());
        assert!(status.success(), "{way:?}: {status}");
        // The whole would have taken ten; `kidafs umount` gives the daemon a second to answer first.
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{way:?}: {:?}",
            began.elapsed()
        );
        assert!(!is_mount_root(&dir));
    }
}

#[test]
fn an_end_in_the_middle_of_a_sweep_leaves_the_rest_alone() {
    const FILES: usize = 20_000;
    for way in [Way::Umount, Way::Umount8, Way::Term] {
        let life = Foreground::prepared(&["--max-entries=10", "--supervise=false"], |dir| {
            fill(dir, FILES);
        });
        let dir = life.dir.clone();
        // The first victim is the sign; the mount answers by then.
        until("the sweep", SOON, || {
            fs::read_dir(&dir).unwrap().count() < FILES - 10
        });
        match way {
            Way::Umount => unmount_by("kidafs", &["umount"], &dir),
            Way::Umount8 => unmount_by("umount", &[], &dir),
            _ => life.signal(Signal::TERM),
        }
        until("the unmount", SOON, || !is_mount_root(&dir));
        let left = fs::read_dir(&dir).unwrap().count();
        let (output, took) = life.end();
        assert!(output.status.success(), "{}", text(&output));
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(left > 0 || way == Way::Umount8, "{way:?}: none was left");
    }
}

#[test]
fn a_file_that_is_open_for_a_moment_is_no_failure() {
    // Longer than a single try, shorter than what is waited for.
    const MOMENT: Duration = Duration::from_millis(700);
    for command in [true, false] {
        let life = Foreground::start(&[]);
        fs::write(life.dir.join("a"), "content").unwrap();
        let open = File::open(life.dir.join("a")).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(MOMENT);
                drop(open);
            });
            if command {
                let output = kidafs().arg("umount").arg(&life.dir).output().unwrap();
                assert!(output.status.success(), "{}", text(&output));
            } else {
                life.signal(Signal::TERM);
            }
        });
        let (output, _) = life.end();
        assert!(output.status.success(), "{}", text(&output));
    }
}

/// In a mount namespace of this test's own, so that the copy of it that is made here holds no other test's mount.
#[test]
fn a_mount_that_lives_on_elsewhere_is_named_with_who_holds_it() {
    const SITUATION: &str = "namespace";
    if !is_in(SITUATION) {
        if is_root() {
            run_test_in(
                SITUATION,
                // Its usual scratch is another user's, which root does not mount in.
                "exec env TMPDIR=/tmp",
                "a_mount_that_lives_on_elsewhere_is_named_with_who_holds_it",
            );
        }
        return;
    }
    let mut mount = Mount::new(&["--supervise=false"]);
    let dir = mount.dir().to_owned();
    let daemon = mount.pid().to_string();
    let mut holder = Command::new("unshare")
        .args(["--mount", "--propagation=private", "sleep", "1000"])
        .spawn()
        .unwrap();
    until("the namespace", SOON, || {
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        fs::read_link(format!("/proc/{}/ns/mnt", holder.id())).is_ok_and(|other| other != own)
    });
    let process = format!("process {} (", holder.id());
    let began = Instant::now();
    let output = kidafs().arg("umount").arg(&dir).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&process) && said.contains(&daemon), "{said}");
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let output = kidafs().arg("mount").arg(&dir).output().unwrap();
    let said = text(&output);
    assert!(
        !output.status.success() && said.contains(&process),
        "{said}"
    );
    // What the sentence advises first.
    holder.kill().unwrap();
    holder.wait().unwrap();
    mount.wait();

    mount.mount(&["--supervise=false"]);
    let other = mount.folder().join("other");
    fs::create_dir(&other).unwrap();
    let bound = Command::new("mount")
        .arg("--bind")
        .args([&dir, &other])
        .status();
    assert!(bound.unwrap().success());
    let output = kidafs().arg("umount").arg(&dir).output().unwrap();
    let said = text(&output);
    let place = format!("mounted on {} too", other.display());
    assert!(!output.status.success() && said.contains(&place), "{said}");
    // Told to end all the same it does, and says what fails.
    let began = Instant::now();
    mount.signal(Signal::TERM);
    mount.wait();
    assert!(began.elapsed() < SOON);
    assert!(mount.log().contains(&place), "{}", mount.log());
    assert!(
        Command::new("umount")
            .arg(&other)
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn a_stopped_daemon_is_named_by_the_command_that_unmounts() {
    let mut mount = Mount::new(&["--supervise=false"]);
    mount.signal(Signal::STOP);
    let output = kidafs().arg("umount").arg(mount.dir()).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let cure = format!("kill -CONT {}", mount.pid());
    assert!(said.contains(&cure), "{said}");
    mount.signal(Signal::CONT);
    mount.wait();
    assert!(!is_mount_root(mount.dir()));
}

#[test]
fn what_is_lost_at_an_end_is_said_by_the_command_that_ended_it() {
    if !is_root() {
        return;
    }
    let place = folder();
    let small = LoopFs::make(place.path(), Kind::Ext4, Kind::Ext4.least_size());
    let backing = small.directory("cache");
    let dir = place.path().join("mount");
    fs::create_dir(&dir).unwrap();
    let mut mount = Mount::over(
        &dir,
        Some(&backing),
        &["--supervise=false", "--keep-free=0"],
    );
    // All that is left is taken by something that is no entry.
    let taken = store_until_full(&small.path().join("taken"));
    assert!(taken > 0);
    fs::write(mount.path("written-in-place"), vec![7; 1 << 20]).unwrap();
    let output = kidafs().arg("umount").arg(&dir).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("1 file (written-in-place)"), "{said}");
    mount.wait();
    fs::remove_file(small.path().join("taken")).unwrap();
    mount.mount(&["--supervise=false"]);
    store(&dir, "entry", b"content").unwrap();
    mount.umount();
}

/// Writes until there is no room any more; returns how much there was.
fn store_until_full(path: &Path) -> u64 {
    let file = File::create(path).unwrap();
    let (mut written, mut step) = (0, 1 << 20);
    while step > 0 {
        match rustix::io::pwrite(&file, &vec![1; step as usize], written) {
            Ok(count) => written += count as u64,
            Err(_) => step /= 2,
        }
    }
    written
}
