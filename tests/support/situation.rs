//! Situations a machine can be in, for tests that root runs: a mount namespace of their own with a
//! `/dev/fuse` as it usually is, and the user nobody. Nothing of the machine is changed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::panic::Location;
use std::process::{Command, Output};

use super::daemon::folder;

const NOBODY: u32 = 65534;

/// Names the situation a test program is in.
const SITUATION: &str = "KIDAFS_TEST_SITUATION";

/// Gives `/dev/fuse` the mode udev gives it, in this mount namespace only.
pub(crate) const USUAL_DEVICE: &str =
    "mknod -m 666 \"$TMPDIR/fuse\" c 10 229 && mount --bind \"$TMPDIR/fuse\" /dev/fuse";

/// A new namespace holds a copy of every mount, those of the tests beside this one among them, and
/// would keep their sessions from ending. (`-c`: nobody looks at one that does not answer.)
const LET_GO: &str = "umount -c -a -l -t fuse.kidafs";

pub(crate) const AS_NOBODY: &str = "exec setpriv --reuid=65534 --regid=65534 --clear-groups";

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this process was put in `situation`.
pub(crate) fn is_in(situation: &str) -> bool {
    std::env::var(SITUATION).as_deref() == Ok(situation)
}

/// The module that a file is in this test program: `tests/mount/names.rs` is `names`.
fn module(file: &str) -> String {
    let path = file
        .split_once("tests/")
        .unwrap()
        .1
        .split_once('/')
        .unwrap()
        .1;
    path.trim_end_matches(".rs").replace('/', "::")
}

/// The tests of a module of this program, by their names.
fn tests_of(module: &str) -> Vec<String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.arg("--list").output().unwrap();
    let list = String::from_utf8(output.stdout).unwrap();
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    names
        .filter(|name| {
            name.rsplit_once("::")
                .is_some_and(|(path, _)| path == module)
        })
        .map(str::to_owned)
        .collect()
}

/// Runs some tests of a copy of this program, which nobody can reach, in a mount namespace that `script`
/// arranges.
fn run_in(situation: &str, script: &str, tests: &[String]) {
    let folder = folder();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copy = folder.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let binary = folder.path().join("kidafs");
    fs::copy(env!("CARGO_BIN_EXE_kidafs"), &binary).unwrap();
    let scratch = folder.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    chown(&scratch, Some(NOBODY), Some(NOBODY)).unwrap();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::create_dir(closed.join("dir")).unwrap();
    fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        .arg(format!("{LET_GO}; {script} \"$0\" \"$@\""))
        .arg(&copy)
        .arg("--exact")
        .args(tests)
        .env("TMPDIR", &scratch)
        .env(SITUATION, situation)
        .current_dir("/")
        .output()
        .unwrap();
    assert_passed(situation, &output);
}

fn assert_passed(situation: &str, output: &Output) {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{situation}:\n{stdout}\n{stderr}");
    assert!(
        !stdout.contains(" 0 passed"),
        "{situation}: no test ran:\n{stdout}"
    );
}

/// Runs one test of the calling file in a situation that `script` arranges.
#[track_caller]
pub(crate) fn run_test_in(situation: &str, script: &str, test: &str) {
    let module = module(Location::caller().file());
    run_in(situation, script, &[format!("{module}::{test}")]);
}

/// Runs all tests of the calling file as nobody; if this is not root, they are run by an ordinary user
/// anyway.
#[track_caller]
pub(crate) fn run_as_ordinary_user() {
    if is_root() {
        let tests = tests_of(&module(Location::caller().file()));
        run_in("user", &format!("{USUAL_DEVICE} && {AS_NOBODY}"), &tests);
    }
}
