//! It takes nothing along and leaves nothing behind.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::daemon::folder;
use crate::support::mount::{Mount, done, kidafs, wait_for};
use crate::support::situation::{AS_NOBODY, USUAL_DEVICE, is_in, is_root, run_test_in};

const NOBODY: u32 = 65534;

/// Starts a mount from a shell that holds a lock and a pipe, ignores and blocks signals, and has
/// limits, a umask, a working directory and a secret of its own.
fn mount_from_a_burdened_shell(folder: &Path, dir: &Path, options: &str) {
    let script = format!(
        "import os, signal, resource
for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR2, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
resource.setrlimit(resource.RLIMIT_CPU, (3600, resource.RLIM_INFINITY))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
os.umask(0o077)
os.chdir({folder:?})
for number in (9, 40):
    os.dup2(os.open('lock', os.O_CREAT | os.O_RDWR), number)
import fcntl
fcntl.flock(9, fcntl.LOCK_EX)
os.execv({binary:?}, ['kidafs', 'mount'] + {options:?}.split() + [{dir:?}])",
        binary = env!("CARGO_BIN_EXE_kidafs"),
    );
    let mut command = Command::new("python3");
    command.args(["-I", "-c", &script]);
    command
        .env("SECRET_TOKEN", "hunter2")
        .env("KIDAFS_CONFIG", "/dev/null");
    done(&mut command);
}

fn status(pid: &str, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap().trim_start_matches(':').trim().to_owned()
}

/// What is wrong with a process that should have nothing of its starter's.
fn burdens(pid: &str, folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for file in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let path = fs::read_link(file.path()).unwrap_or_default();
        if path == folder.join("lock") {
            found.push(format!(
                "holds {} as {:?}",
                path.display(),
                file.file_name()
            ));
        }
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    if String::from_utf8_lossy(&environment).contains("hunter2") {
        found.push("knows the secret".to_owned());
    }
    let mask = |key| u64::from_str_radix(&status(pid, key), 16).unwrap();
    let own = 1 << 12 | 7 << 31;
    if mask("SigIgn") & !own != 0 || mask("SigBlk") != 0 {
        found.push(format!(
            "ignores {:x}, blocks {:x}",
            mask("SigIgn"),
            mask("SigBlk")
        ));
    }
    if fs::read_link(format!("/proc/{pid}/cwd")).unwrap() != Path::new("/") {
        found.push("is in the starter's directory".to_owned());
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    for (limit, soft) in [
        ("Max file size", "4096"),
        ("Max cpu time", "3600"),
        ("Max open files", "64"),
    ] {
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix(limit))
            .unwrap();
        if line.split_whitespace().next() == Some(soft) {
            found.push(format!("has the limit {limit}"));
        }
    }
    found
}

#[test]
fn a_daemon_has_nothing_of_its_starters_and_its_supervisor_neither() {
    for options in ["--supervise=false", "--supervise"] {
        let folder = folder();
        let dir = folder.path().join("dir");
        mount_from_a_burdened_shell(folder.path(), &dir, options);
        let daemon = fs::read_to_string(dir.join(".kidafs/pid")).unwrap();
        let daemon = daemon.trim();
        assert_eq!(
            burdens(daemon, folder.path()),
            Vec::<String>::new(),
            "{options}"
        );
        assert_eq!(status(daemon, "Umask"), "0000");
        let supervisor = status(daemon, "PPid");
        if options == "--supervise" {
            assert_eq!(burdens(&supervisor, folder.path()), Vec::<String>::new());
        }
        done(
            Command::new("flock")
                .arg("-n")
                .arg(folder.path().join("lock"))
                .arg("true"),
        );
        // A file larger than the starter's limit.
        fs::write(dir.join("tmpabcdefgh"), vec![0; 100_000]).unwrap();
        fs::rename(dir.join("tmpabcdefgh"), dir.join("big")).unwrap();
        done(kidafs().arg("umount").arg(&dir));
        assert_eq!(dir.join("big").metadata().unwrap().len(), 100_000);
    }
}

#[test]
fn the_command_of_run_keeps_what_its_starter_gave_it() {
    let folder = folder();
    let dir = folder.path().join("dir");
    let script = "exec 9> \"$0/lock\"; trap '' HUP USR2; export SECRET_TOKEN=x; umask 027; cd \"$0\"; \
        \"$1\" run dir -- sh -c 'echo into >&9; umask; pwd; echo $SECRET_TOKEN; grep SigIgn /proc/self/status'";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(folder.path());
    command.arg(env!("CARGO_BIN_EXE_kidafs"));
    let said = done(command.env("KIDAFS_CONFIG", "/dev/null"));
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..3], ["0027", folder.path().to_str().unwrap(), "x"]);
    let ignored = u64::from_str_radix(lines[3].split_whitespace().nth(1).unwrap(), 16).unwrap();
    assert_eq!(ignored & 0b1000_0000_0001, 0b1000_0000_0001, "{said}");
    assert_eq!(
        fs::read_to_string(folder.path().join("lock")).unwrap(),
        "into\n"
    );
    assert!(!dir.join(".kidafs").exists());
}

fn names(dir: &Path) -> Vec<String> {
    let list = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = list
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn after_a_clean_end_a_saved_copy_can_be_copied_into_a_mount() {
    let mut old = Mount::new(&[]);
    old.commit("a", "A");
    fs::create_dir(old.path("sub")).unwrap();
    old.commit("sub/b", "B");
    old.umount();
    assert_eq!(names(old.dir()), ["a", "sub"]);
    let tar = old.folder().join("saved.tar");
    done(
        Command::new("tar")
            .arg("cf")
            .arg(&tar)
            .arg("-C")
            .arg(old.dir())
            .arg("."),
    );
    for program in ["cp", "rsync", "tar"] {
        let new = Mount::new(&[]);
        let mut command = Command::new(program);
        match program {
            "cp" => command.arg("-a").arg(old.dir().join(".")).arg(new.dir()),
            "rsync" => command.arg("-a").arg(old.dir().join("")).arg(new.dir()),
            _ => command.arg("xf").arg(&tar).arg("-C").arg(new.dir()),
        };
        done(&mut command);
        assert_eq!(
            fs::read_to_string(new.path("sub/b")).unwrap(),
            "B",
            "{program}"
        );
    }
}

#[test]
fn a_start_that_fails_leaves_no_private_folder() {
    let folder = folder();
    let dir = folder.path().join("dir");
    fs::create_dir(&dir).unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let failed = kidafs()
        .args(["mount", "--backing"])
        .arg(folder.path().join("file"))
        .arg(&dir)
        .output()
        .unwrap();
    assert!(!failed.status.success());
    assert_eq!(names(&dir), Vec::<String>::new());
}

#[test]
fn what_is_set_aside_stays_and_nothing_else() {
    let mut mount = Mount::new(&[]);
    mount.commit("a", "A");
    mount.umount();
    let private = mount.dir().join(".kidafs");
    fs::create_dir_all(private.join("quarantine")).unwrap();
    fs::set_permissions(&private, PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(private.join("quarantine/1.x"), "wrong").unwrap();
    mount.mount(&[]);
    mount.umount();
    assert_eq!(names(&private), ["lock", "quarantine"]);
}

/// A directory of nobody's, in a folder that everybody may search.
fn of_nobody(folder: &Path) -> PathBuf {
    fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
    let dir = folder.join("dir");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).unwrap();
    chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
    dir
}

#[test]
fn what_roots_daemon_makes_belongs_to_the_directorys_owner() {
    if !is_root() {
        return;
    }
    let folder = folder();
    let dir = of_nobody(folder.path());
    done(
        kidafs()
            .args(["mount", "--supervise=false", "--allow-other"])
            .arg(&dir),
    );
    let pid = fs::read_to_string(dir.join(".kidafs/pid")).unwrap();
    done(Command::new("kill").arg("-KILL").arg(pid.trim()));
    wait_for("its end", || {
        (!Path::new("/proc").join(pid.trim()).exists()).then_some(())
    });
    done(kidafs().arg("umount").arg(&dir));
    for name in ["", "lock", "tmp", "quarantine"] {
        let path = dir.join(".kidafs").join(name);
        assert_eq!(path.metadata().unwrap().uid(), NOBODY, "{}", path.display());
    }
}

#[test]
fn a_user_mounts_again_what_roots_daemon_of_old_has_left_closed() {
    const SITUATION: &str = "left-by-root";
    if is_in(SITUATION) {
        // Empty or not: the first was made by root within `TMPDIR`, which is nobody's.
        for name in ["empty", "full"] {
            let dir = std::env::temp_dir().join(name);
            done(kidafs().arg("mount").arg(&dir));
            done(kidafs().arg("umount").arg(&dir));
            assert!(!dir.join(".kidafs").exists());
        }
        assert!(std::env::temp_dir().join("full/.kidafs.root-1").exists());
    } else if is_root() {
        let left = "for d in empty full; do mkdir -p \"$TMPDIR/$d/.kidafs\"; chmod 700 \"$TMPDIR/$d/.kidafs\" \"$TMPDIR/$d\"; \
                    chown 65534:65534 \"$TMPDIR/$d\"; done; touch \"$TMPDIR/full/.kidafs/lock\"";
        run_test_in(
            SITUATION,
            &format!("{USUAL_DEVICE} && {left} && {AS_NOBODY}"),
            "a_user_mounts_again_what_roots_daemon_of_old_has_left_closed",
        );
    }
}
