//! An ordinary user mounts through fusermount3, with the same promises; and what is missing on a
//! machine is said in one sentence with its cure.
//!
//! Run by root, each test puts itself in its situation: a mount namespace of its own with a
//! `/dev/fuse` as it usually is, and the user nobody. So nothing of the machine is changed.

mod common {
    pub(crate) mod daemon;
}

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::daemon::folder;
use kidafs::daemon::mount::{MountError, MountOptions, clear, mount};
use kidafs::daemon::mountpoint::InspectError;

const NOBODY: u32 = 65534;

/// Names the situation a test program is in.
const SITUATION: &str = "KIDAFS_TEST_SITUATION";

/// Gives `/dev/fuse` the mode udev gives it, in this mount namespace only.
const USUAL_DEVICE: &str =
    "mknod -m 666 \"$TMPDIR/fuse\" c 10 229 && mount --bind \"$TMPDIR/fuse\" /dev/fuse";

const AS_NOBODY: &str = "exec setpriv --reuid=65534 --regid=65534 --clear-groups";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this process was put in `situation`.
fn is_in(situation: &str) -> bool {
    std::env::var(SITUATION).as_deref() == Ok(situation)
}

/// Runs a copy of `program`, which nobody can reach, in a mount namespace that `script` arranges.
fn run_in(situation: &str, script: &str, program: &Path, arguments: &[&str]) {
    let folder = folder();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copy = folder.path().join("tests");
    fs::copy(program, &copy).unwrap();
    let scratch = folder.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    chown(&scratch, Some(NOBODY), Some(NOBODY)).unwrap();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::create_dir(closed.join("dir")).unwrap();
    fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &format!("{script} \"$0\" \"$@\"")])
        .arg(&copy)
        .args(arguments)
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

fn run_this_test_in(situation: &str, script: &str, test: &str) {
    let program = std::env::current_exe().unwrap();
    run_in(situation, script, &program, &["--exact", test]);
}

/// The test program beside this one, whatever hash cargo gave it.
fn sibling(name: &str) -> PathBuf {
    let directory = std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .to_owned();
    let newest = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension().is_none()
                && path
                    .file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .rsplit_once('-')
                    .map(|(stem, _)| stem)
                    == Some(name)
        })
        .max_by_key(|path| path.metadata().unwrap().modified().unwrap());
    newest.unwrap_or_else(|| panic!("{name} has not been built"))
}

#[test]
fn an_ordinary_user_has_the_same_mounts_and_lives() {
    if !is_root() {
        return; // Then those tests are run as this user anyway.
    }
    let script = format!("{USUAL_DEVICE} && {AS_NOBODY}");
    run_in("user", &script, &sibling("daemon_mount"), &[]);
    run_in("user", &script, &sibling("daemon_life"), &[]);
    run_in("user", &script, &sibling("daemon_backing"), &[]);
}

#[test]
fn without_fusermount3() {
    let test = "without_fusermount3";
    if is_in(test) {
        let error = mount(folder().path(), &MountOptions::default()).unwrap_err();
        assert!(matches!(error, MountError::NoHelper), "{error:?}");
        assert!(
            error.to_string().contains("install the package fuse3"),
            "{error}"
        );
    } else if is_root() {
        let script = format!("{USUAL_DEVICE} && {AS_NOBODY} env PATH=/nonexistent");
        run_this_test_in(test, &script, test);
    }
}

#[test]
fn without_dev_fuse() {
    let test = "without_dev_fuse";
    if is_in(test) {
        let error = mount(folder().path(), &MountOptions::default()).unwrap_err();
        assert!(matches!(error, MountError::NoDevice), "{error:?}");
        assert!(error.to_string().contains("modprobe fuse"), "{error}");
    } else if is_root() {
        run_this_test_in(test, "mount -t tmpfs none /dev && exec", test);
        let script = format!("mount -t tmpfs none /dev && {AS_NOBODY}");
        run_this_test_in(test, &script, test);
    }
}

#[test]
fn dev_fuse_for_root_only() {
    let test = "dev_fuse_for_root_only";
    if is_in(test) {
        let error = mount(folder().path(), &MountOptions::default()).unwrap_err();
        assert!(matches!(error, MountError::DeviceDenied), "{error:?}");
        assert!(error.to_string().contains("chmod 666 /dev/fuse"), "{error}");
    } else if is_root() {
        let script = format!("{USUAL_DEVICE} && chmod 600 /dev/fuse && {AS_NOBODY}");
        run_this_test_in(test, &script, test);
    }
}

#[test]
fn sharing_that_fuse_conf_does_not_allow() {
    let test = "sharing_that_fuse_conf_does_not_allow";
    if is_in(test) {
        let options = MountOptions {
            allow_other: true,
            ..MountOptions::default()
        };
        let error = mount(folder().path(), &options).unwrap_err();
        assert!(matches!(error, MountError::AllowOther), "{error:?}");
        assert!(error.to_string().contains("user_allow_other"), "{error}");
    } else if is_root() {
        let script = format!(
            "{USUAL_DEVICE} && echo '#user_allow_other' > \"$TMPDIR/conf\" && chmod 644 \"$TMPDIR/conf\" && mount --bind \"$TMPDIR/conf\" /etc/fuse.conf && {AS_NOBODY}"
        );
        run_this_test_in(test, &script, test);
    }
}

#[test]
fn sharing_that_fuse_conf_allows() {
    let test = "sharing_that_fuse_conf_allows";
    if is_in(test) {
        let folder = folder();
        let options = MountOptions {
            allow_other: true,
            ..MountOptions::default()
        };
        let (_device, _mounted) = mount(folder.path(), &options).unwrap();
    } else if is_root() {
        let script = format!(
            "{USUAL_DEVICE} && echo user_allow_other > \"$TMPDIR/conf\" && chmod 644 \"$TMPDIR/conf\" && mount --bind \"$TMPDIR/conf\" /etc/fuse.conf && {AS_NOBODY}"
        );
        run_this_test_in(test, &script, test);
    }
}

#[test]
fn a_directory_that_is_not_the_users_to_mount_over() {
    let test = "a_directory_that_is_not_the_users_to_mount_over";
    if is_in(test) {
        // The parent of the temporary folder is root's.
        let parent = std::env::temp_dir().parent().unwrap().to_owned();
        let error = mount(&parent, &MountOptions::default()).unwrap_err();
        assert!(matches!(error, MountError::Denied { .. }), "{error:?}");
        assert!(error.to_string().contains("chown, chmod u+w"), "{error}");
        // And beside it is one that cannot even be searched.
        let error = clear(&parent.join("closed/dir")).unwrap_err();
        let denied = matches!(error, MountError::Inspect(InspectError::Denied { .. }));
        assert!(denied, "{error:?}");
        assert!(error.to_string().contains("right to search"), "{error}");
    } else if is_root() {
        run_this_test_in(test, &format!("{USUAL_DEVICE} && {AS_NOBODY}"), test);
    }
}
