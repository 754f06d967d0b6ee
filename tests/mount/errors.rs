//! What `kidafs mount` refuses, with one sentence that says why and what to do, status 1 (2 for wrong
//! usage), and nothing mounted or changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::daemon::{folder, is_mount_root};
use crate::support::mount::{Mount, kidafs, text};
use crate::support::situation::{AS_NOBODY, USUAL_DEVICE, is_in, is_root, run_test_in};

/// The sentence with which `kidafs mount` refuses `dir`.
#[track_caller]
fn refusal(options: &[&str], dir: &Path, status: i32) -> String {
    let was_mounted = is_mount_root(dir);
    let output = kidafs()
        .arg("mount")
        .args(options)
        .arg(dir)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(status), "{}", text(&output));
    assert_eq!(output.stdout, b"");
    assert_eq!(is_mount_root(dir), was_mounted);
    let said = String::from_utf8(output.stderr).unwrap();
    let sentence = said
        .strip_prefix("kidafs: ")
        .unwrap_or_else(|| panic!("{said}"));
    let sentence = sentence.strip_suffix('\n').unwrap();
    assert!(!sentence.contains('\n'), "{said}");
    sentence.to_owned()
}

#[track_caller]
fn assert_says(sentence: &str, parts: &[&str]) {
    for part in parts {
        assert!(sentence.contains(part), "'{part}' is not in: {sentence}");
    }
}

#[test]
fn a_file_is_no_directory() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "content").unwrap();
    let path = file.to_str().unwrap().to_owned();
    assert_says(&refusal(&[], &file, 1), &[&path, "is not a directory"]);
    let below = file.join("cache");
    assert_says(&refusal(&[], &below, 1), &[&path, "not a directory"]);
    assert_eq!(fs::read(&file).unwrap(), b"content");
    // As the backing directory.
    let dir = folder.path().join("cache");
    fs::create_dir(&dir).unwrap();
    let option = format!("--backing={path}");
    assert_says(
        &refusal(&[&option], &dir, 1),
        &[&path, "is not a directory"],
    );
}

#[test]
fn what_is_served_already() {
    let mount = Mount::new(&[]);
    let pid = mount.pid().as_raw_pid().to_string();
    mount.commit("entry", "content");
    let dir = mount.dir().to_str().unwrap();
    let sentence = refusal(&[], mount.dir(), 1);
    assert_says(
        &sentence,
        &["already served", &pid, &format!("kidafs umount {dir}")],
    );
    // By another path as well.
    let link = mount.folder().join("link");
    std::os::unix::fs::symlink(mount.dir(), &link).unwrap();
    assert_says(&refusal(&[], &link, 1), &["already served", &pid]);
    assert_eq!(fs::read(mount.path("entry")).unwrap(), b"content");
}

#[test]
fn a_backing_directory_of_another_daemon() {
    let mount = Mount::backed(&[]);
    let pid = format!("(process {})", mount.pid().as_raw_pid());
    let other = mount.folder().join("other");
    fs::create_dir(&other).unwrap();
    let option = format!("--backing={}", mount.backing().display());
    assert_says(&refusal(&[&option], &other, 1), &["in use", &pid]);
    // Mounted over itself it is the same directory.
    assert_says(&refusal(&[], &mount.backing(), 1), &["in use", &pid]);
    drop(mount);
}

#[test]
fn a_directory_that_everybody_can_write() {
    let folder = folder();
    let dir = folder.path().join("cache");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o777)).unwrap();
    let cure = format!("chmod o-w {}", dir.display());
    assert_says(&refusal(&[], &dir, 1), &["every user", &cure]);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn wrong_usage() {
    let folder = folder();
    let dir = folder.path().join("cache");
    let cases: [(&str, &[&str]); 6] = [
        ("--memroy=1MiB", &["--memroy", "--memory"]),
        ("--memory=much", &["memory", "much"]),
        ("--pattern={name}.pyc", &["pattern", "{hash}"]),
        ("--durability=some", &["durability", "some", "power"]),
        ("-omemroy=1MiB", &["memroy"]),
        ("--max-age=soon", &["max-age", "soon"]),
    ];
    for (option, expected) in cases {
        let output = kidafs().args(["mount", option]).arg(&dir).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{option}: {}", text(&output));
        assert_says(&text(&output), expected);
        assert!(!dir.exists(), "{option}");
    }
}

#[test]
fn what_is_not_mounted() {
    let folder = folder();
    let path = folder.path().to_str().unwrap();
    let output = kidafs().args(["umount", path]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_says(&text(&output), &[path, "is not a kidafs mount"]);
}

#[test]
fn no_permission() {
    let test = "no_permission";
    if is_in(test) {
        // Beside the temporary folder is one of root's, which cannot be searched; their parent is root's.
        let parent = std::env::temp_dir().parent().unwrap().to_owned();
        assert_says(
            &refusal(&[], &parent.join("new"), 1),
            &["no permission", "new"],
        );
        let sentence = refusal(&[], &parent.join("closed/dir"), 1);
        assert_says(&sentence, &["closed/dir", "search"]);
        assert_says(
            &refusal(&[], &parent, 1),
            &["no permission", "must be yours"],
        );
        let folder = folder();
        let own = folder.path().join("cache");
        fs::create_dir(&own).unwrap();
        fs::set_permissions(&own, PermissionsExt::from_mode(0o500)).unwrap();
        assert_says(&refusal(&[], &own, 1), &["no permission", "u+rwx"]);
    } else if is_root() {
        run_test_in(test, &format!("{USUAL_DEVICE} && {AS_NOBODY}"), test);
    }
}

/// Root serves nothing in a folder of another user's.
const ROOTS: &str = "chown 0:0 \"$TMPDIR\"";

#[test]
fn no_dev_fuse() {
    let test = "no_dev_fuse";
    if is_in(test) {
        let folder = folder();
        assert_says(
            &refusal(&[], folder.path(), 1),
            &["/dev/fuse is not there", "modprobe fuse"],
        );
    } else if is_root() {
        let no_device = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3";
        run_test_in(test, &format!("{no_device} && {ROOTS} && exec"), test);
        run_test_in(test, &format!("{no_device} && {AS_NOBODY}"), test);
    }
}

#[test]
fn dev_fuse_that_is_no_device() {
    let test = "dev_fuse_that_is_no_device";
    if is_in(test) {
        let folder = folder();
        let sentence = refusal(&[], folder.path(), 1);
        assert_says(&sentence, &["/dev/fuse is not there"]);
    } else if is_root() {
        let no_device = "mount --bind /dev/null /dev/fuse";
        run_test_in(test, &format!("{no_device} && {ROOTS} && exec"), test);
    }
}

#[test]
fn dev_fuse_for_root_only() {
    let test = "dev_fuse_for_root_only";
    if is_in(test) {
        let folder = folder();
        assert_says(
            &refusal(&[], folder.path(), 1),
            &["/dev/fuse may not be opened", "chmod 666 /dev/fuse"],
        );
    } else if is_root() {
        run_test_in(
            test,
            &format!("{USUAL_DEVICE} && chmod 600 /dev/fuse && {AS_NOBODY}"),
            test,
        );
    }
}

#[test]
fn no_fusermount3() {
    let test = "no_fusermount3";
    if is_in(test) {
        let folder = folder();
        assert_says(
            &refusal(&[], folder.path(), 1),
            &["fusermount3 was not found", "install the package fuse3"],
        );
    } else if is_root() {
        run_test_in(
            test,
            &format!("{USUAL_DEVICE} && {AS_NOBODY} env PATH=/nonexistent"),
            test,
        );
    }
}

#[test]
fn an_ordinary_user_is_refused_alike() {
    crate::support::situation::run_as_ordinary_user();
}
