//! What an ordinary user's machine lacks is said in one sentence with its cure. That mounts and
//! daemons are the same for ordinary users, each of their test files sees to itself.

use crate::support::daemon::folder;
use crate::support::situation::{AS_NOBODY, USUAL_DEVICE, is_in, is_root, run_test_in};
use kidafs::daemon::mount::{MountError, MountOptions, clear, mount};
use kidafs::daemon::mountpoint::InspectError;

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
        run_test_in(test, &script, test);
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
        run_test_in(test, "mount -t tmpfs none /dev && exec", test);
        let script = format!("mount -t tmpfs none /dev && {AS_NOBODY}");
        run_test_in(test, &script, test);
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
        run_test_in(test, &script, test);
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
        run_test_in(test, &script, test);
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
        run_test_in(test, &script, test);
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
        run_test_in(test, &format!("{USUAL_DEVICE} && {AS_NOBODY}"), test);
    }
}
