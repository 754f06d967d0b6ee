//! Who may do what on a real mount: other users, groups, owners and locks. Root runs these, since it takes root
//! to be somebody else; what an ordinary user sees of their own mount, the other files test.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::support::daemon::is_mount_root;
use crate::support::mount::{Mount, done, kidafs, text, wait_for};
use crate::support::situation::is_root;
use rustix::fs::{AtFlags, CWD, FlockOperation, StatxFlags};
use rustix::io::Errno;

const NOBODY: u32 = 65534;

/// Runs a script in a directory as the user and group nobody.
fn as_nobody(dir: &Path, script: &str) -> Output {
    let mut shell = Command::new("sh");
    let shell = shell
        .args(["-euc", script, "sh"])
        .arg(dir)
        .env("LC_ALL", "C");
    shell
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap()
}

#[track_caller]
fn nobody_may(dir: &Path, script: &str) {
    let output = as_nobody(dir, script);
    assert!(output.status.success(), "{}", text(&output));
}

#[track_caller]
fn nobody_may_not(dir: &Path, script: &str) {
    let output = as_nobody(dir, script);
    assert!(!output.status.success(), "{script}");
    assert!(
        text(&output).contains("Permission denied") || text(&output).contains("not permitted"),
        "{}",
        text(&output)
    );
}

fn open_folder(mount: &Mount) {
    fs::set_permissions(mount.folder(), PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(mount.dir(), PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn other_users_are_kept_out() {
    if !is_root() {
        return;
    }
    let mount = Mount::new(&[]);
    open_folder(&mount);
    let entry = mount.commit("entry", "content");
    fs::set_permissions(entry, PermissionsExt::from_mode(0o644)).unwrap();
    nobody_may_not(mount.dir(), "cat \"$1/entry\"");
    nobody_may_not(mount.dir(), "ls \"$1\"");
    nobody_may_not(mount.dir(), "cat \"$1/.kidafs/pid\"");
}

#[test]
fn allow_other_lets_them_in_as_far_as_modes_do() {
    if !is_root() {
        return;
    }
    let mut mount = Mount::new(&["--allow-other"]);
    open_folder(&mount);
    let dir = mount.dir().to_owned();
    for (name, mode) in [("readable", 0o644), ("private", 0o600)] {
        fs::set_permissions(
            mount.commit(name, "content"),
            PermissionsExt::from_mode(mode),
        )
        .unwrap();
    }
    fs::create_dir(mount.path("theirs")).unwrap();
    chown(mount.path("theirs"), Some(NOBODY), Some(NOBODY)).unwrap();
    nobody_may(
        &dir,
        "test \"$(cat \"$1/readable\")\" = content; ls -l \"$1\" >/dev/null; cat \"$1/.kidafs/pid\"",
    );
    for refused in [
        "cat \"$1/private\"",
        "echo >>\"$1/readable\"",
        "echo >\"$1/new\"",
        "rm -f \"$1/readable\"",
        "mv \"$1/readable\" \"$1/new\"",
        "mkdir \"$1/new\"",
        "chmod 666 \"$1/readable\"",
        "touch -d 2020-01-01 \"$1/readable\"",
        "chown 65534 \"$1/readable\"",
        "mv \"$1/private\" \"$1/theirs/\"",
    ] {
        nobody_may_not(&dir, refused);
    }
    // What they make is theirs, on both sides and after the next mount.
    nobody_may(
        &dir,
        "cd \"$1/theirs\"; umask 022; echo x >tmpabcdefgh; mv tmpabcdefgh entry; echo y >in-place; mkdir dir; ln -s entry link; chmod 600 entry",
    );
    for _ in 0..2 {
        for name in ["entry", "in-place", "dir", "link"] {
            let found = fs::symlink_metadata(mount.path("theirs").join(name)).unwrap();
            assert_eq!((found.uid(), found.gid()), (NOBODY, NOBODY), "{name}");
        }
        assert_eq!(
            fs::metadata(mount.path("theirs/entry")).unwrap().mode() & 0o7777,
            0o600
        );
        mount.umount();
        mount.mount(&["--allow-other"]);
    }
    nobody_may(
        &dir,
        "cd \"$1/theirs\"; test \"$(cat entry)\" = x; test \"$(cat in-place)\" = y; rm -r dir link entry",
    );
}

#[test]
fn the_sticky_bit_protects_what_others_own() {
    if !is_root() {
        return;
    }
    let mount = Mount::new(&["--allow-other"]);
    open_folder(&mount);
    let shared = mount.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, PermissionsExt::from_mode(0o1777)).unwrap();
    mount.commit("shared/roots", "content");
    nobody_may_not(&shared, "rm -f \"$1/roots\"");
    nobody_may_not(&shared, "mv \"$1/roots\" \"$1/mine\"");
    nobody_may(
        &shared,
        "echo >\"$1/mine\"; mv \"$1/mine\" \"$1/own\"; rm \"$1/own\"",
    );
}

#[test]
fn a_directory_with_the_set_group_id_bit_hands_its_group_on() {
    if !is_root() {
        return;
    }
    let mut mount = Mount::new(&[]);
    let dir = mount.path("dir");
    fs::create_dir(&dir).unwrap();
    chown(&dir, None, Some(4_242)).unwrap();
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o2775)).unwrap();
    mount.commit("dir/entry", "content");
    fs::write(dir.join("in-place"), "content").unwrap();
    fs::create_dir(dir.join("sub")).unwrap();
    for _ in 0..2 {
        for name in ["entry", "in-place", "sub"] {
            assert_eq!(fs::metadata(dir.join(name)).unwrap().gid(), 4_242, "{name}");
        }
        assert_eq!(
            fs::metadata(dir.join("sub")).unwrap().mode() & 0o7000,
            0o2000
        );
        assert_eq!(fs::metadata(dir.join("entry")).unwrap().mode() & 0o7000, 0);
        mount.remount();
    }
}

#[test]
fn owners_are_changed_and_kept() {
    if !is_root() {
        return;
    }
    let mut mount = Mount::new(&[]);
    let entry = mount.commit("entry", "content");
    fs::create_dir(mount.path("dir")).unwrap();
    fs::write(mount.path("tmpabcdefgh"), "staged").unwrap();
    std::os::unix::fs::symlink("entry", mount.path("link")).unwrap();
    let names = ["entry", "dir", "link", "tmpabcdefgh"];
    for (name, id) in names.into_iter().zip(1_000..) {
        std::os::unix::fs::lchown(mount.path(name), Some(id), Some(id + 1_000)).unwrap();
    }
    fs::rename(mount.path("tmpabcdefgh"), mount.path("committed")).unwrap();
    let names = ["entry", "dir", "link", "committed"];
    for _ in 0..2 {
        for (name, id) in names.into_iter().zip(1_000..) {
            for path in [mount.path(name), mount.backing().join(name)] {
                let found = fs::symlink_metadata(path).unwrap();
                assert_eq!((found.uid(), found.gid()), (id, id + 1_000), "{name}");
            }
        }
        mount.remount();
    }
    // A new owner ends what the old one's set-id bits gave.
    fs::set_permissions(&entry, PermissionsExt::from_mode(0o6755)).unwrap();
    chown(&entry, Some(1), None).unwrap();
    assert_eq!(fs::metadata(&entry).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_write_takes_the_set_id_bits_away_unless_it_is_roots() {
    if !is_root() {
        return;
    }
    let mount = Mount::new(&["--allow-other"]);
    open_folder(&mount);
    let entry = mount.commit("entry", "content");
    chown(&entry, Some(NOBODY), Some(NOBODY)).unwrap();
    fs::set_permissions(&entry, PermissionsExt::from_mode(0o6755)).unwrap();
    let modes = || {
        // What the kernel remembers, and what the daemon says.
        [AtFlags::empty(), AtFlags::STATX_FORCE_SYNC].map(|how| {
            let stat = rustix::fs::statx(CWD, &entry, how, StatxFlags::MODE).unwrap();
            stat.stx_mode & 0o7777
        })
    };
    let mut file = File::options().append(true).open(&entry).unwrap();
    file.write_all(b"x").unwrap();
    assert_eq!(modes(), [0o6755; 2]);
    nobody_may(mount.dir(), "echo >>\"$1/entry\"");
    wait_for("the mode without set-id bits", || {
        (modes() == [0o755; 2]).then_some(())
    });
}

/// Takes a lock on a file, says so, and holds it until its input ends; status 11 (EAGAIN) if it cannot.
const LOCKER: &str = "
import fcntl, sys
lock = getattr(fcntl, sys.argv[1])
file = open(sys.argv[2], 'r+')
try:
    lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError as error:
    sys.exit(error.errno)
print('locked', flush=True)
sys.stdin.read()
";

fn locker(path: &Path, how: &str) -> Child {
    let mut command = Command::new(crate::support::python::python());
    command.args(["-I", "-c", LOCKER, how]).arg(path);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn two_processes_lock_one_file() {
    let mount = Mount::new(&[]);
    let path = mount.commit("entry", "content");
    type Lock = fn(&File, FlockOperation) -> rustix::io::Result<()>;
    let kinds: [(&str, Lock); 2] = [
        ("flock", |file, how| rustix::fs::flock(file, how)),
        ("lockf", |file, how| rustix::fs::fcntl_lock(file, how)),
    ];
    for (name, lock) in kinds {
        let mut other = locker(&path, name);
        let mut said = String::new();
        let output = other.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut said).unwrap();
        assert_eq!(said, "locked\n");
        let file = File::options().read(true).write(true).open(&path).unwrap();
        for how in [
            FlockOperation::NonBlockingLockExclusive,
            FlockOperation::NonBlockingLockShared,
        ] {
            assert_eq!(lock(&file, how), Err(Errno::AGAIN), "{name}");
        }
        // Waits for the end of the other.
        drop(other.stdin.take());
        lock(&file, FlockOperation::LockExclusive).unwrap();
        assert!(other.wait().unwrap().success());
        let refused = locker(&path, name).wait().unwrap().code();
        assert_eq!(refused, Some(Errno::AGAIN.raw_os_error()), "{name}");
    }
}

#[test]
fn a_directory_that_is_created_is_its_owners_alone() {
    let folder = crate::support::daemon::folder();
    let dir = folder.path().join("parents/cache");
    done(kidafs().arg("mount").arg(&dir));
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o700);
    done(kidafs().arg("umount").arg(&dir));
    assert!(!is_mount_root(&dir));
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o700);
}
