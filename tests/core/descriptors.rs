//! Descriptors are bounded: directories are opened when they are used, and a commit finds one left.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::live;
use crate::support::mount::{Mount, kidafs};
use crate::support::situation::{AS_NOBODY, USUAL_DEVICE, is_in, is_root, run_test_in};
use rustix::process::Pid;

/// Descriptors that a process has open.
fn open_by(pid: Pid) -> usize {
    let path = format!("/proc/{}/fd", pid.as_raw_nonzero());
    fs::read_dir(path).unwrap().count()
}

/// Makes `count` directories, 50 in each, each with a file.
fn plant(dir: &Path, count: usize) {
    for number in 0..count {
        let own = dir.join(format!("{}/{number}", number / 50));
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("file"), number.to_string()).unwrap();
    }
}

/// Runs a shell's script with a limit of open files, and kidafs as `$K`.
fn limited(limit: u32, script: &str, dir: &Path) -> std::process::Output {
    let program = kidafs().get_program().to_owned();
    Command::new("sh")
        .arg("-c")
        .arg(format!(
            "ulimit -Sn {limit} && ulimit -Hn {limit} && {script}"
        ))
        .env("K", program)
        .env("D", dir)
        .env("KIDAFS_CONFIG", "/dev/null")
        .output()
        .unwrap()
}

#[test]
fn five_thousand_directories_are_served_with_a_hard_limit_of_256() {
    let folder = live::folder();
    let dir = folder.path().join("cache");
    plant(&dir, 5_000);
    let output = limited(256, "$K mount --adopt --log-file \"$D.log\" \"$D\"", &dir);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let pid = fs::read_to_string(dir.join(".kidafs/pid")).unwrap();
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    for number in 0..5_000 {
        let path = dir.join(format!("{}/{number}", number / 50));
        if number % 50 == 0 {
            assert_eq!(
                fs::read(path.join("file")).unwrap(),
                number.to_string().as_bytes()
            );
            fs::write(path.join("tmpabcdefgh"), "new").unwrap();
            fs::rename(path.join("tmpabcdefgh"), path.join("new")).unwrap();
            fs::create_dir(path.join("sub")).unwrap();
        }
    }
    assert!(open_by(pid) < 256, "{}", open_by(pid));
    let log = fs::read_to_string(format!("{}.log", dir.display())).unwrap();
    assert!(!log.contains("Too many open files"), "{log}");
    assert!(kidafs().arg("umount").arg(&dir).status().unwrap().success());
    assert_eq!(fs::read(dir.join("0/0/new")).unwrap(), b"new");
}

#[test]
fn directories_made_in_the_mount_stop_no_commit() {
    let folder = live::folder();
    let dir = folder.path().join("cache");
    fs::create_dir(&dir).unwrap();
    let output = limited(256, "$K mount \"$D\"", &dir);
    assert!(output.status.success());
    plant(&dir, 1_500);
    // Many files open at once, unlinked, and many staged: each may need a descriptor of the daemon's.
    let open: Vec<_> = (0..300)
        .map(|number| {
            let path = dir.join(format!("{}/{number}/file", number / 50));
            let file = fs::File::open(&path).unwrap();
            fs::write(dir.join(format!("{number}.pyc.abcdefgh.tmp")), "staged").unwrap();
            file
        })
        .collect();
    for number in 0..1_500 {
        let path = dir.join(format!("{}/{number}", number / 50));
        fs::write(path.join("tmpabcdefgh"), "new").unwrap();
        fs::rename(path.join("tmpabcdefgh"), path.join("file")).unwrap();
    }
    drop(open);
    assert!(kidafs().arg("umount").arg(&dir).status().unwrap().success());
    for number in 0..1_500 {
        let path = dir.join(format!("{}/{number}/file", number / 50));
        assert_eq!(fs::read(path).unwrap(), b"new");
    }
}

#[test]
fn a_directory_that_was_moved_with_all_below_it_is_found_again() {
    let mount = Mount::prepared(&["--adopt"], |dir| plant(dir, 2_000));
    for round in 0..2 {
        for group in 0..40 {
            let name = |round: u32| match round {
                0 => mount.path(group.to_string()),
                round => mount.path(format!("moved{round}-{group}")),
            };
            fs::rename(name(round), name(round + 1)).unwrap();
        }
        // Used in another order, so that most have been closed in between.
        for number in (0..2_000).rev() {
            let path = mount.path(format!("moved{}-{}/{number}", round + 1, number / 50));
            assert_eq!(
                fs::read(path.join("file")).unwrap(),
                number.to_string().as_bytes()
            );
            fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
            fs::write(path.join("tmpabcdefgh"), "new").unwrap();
            fs::rename(path.join("tmpabcdefgh"), path.join(format!("new{round}"))).unwrap();
        }
    }
    let beneath = mount.backing().join("moved2-39/1999");
    assert_eq!(fs::read(beneath.join("new1")).unwrap(), b"new");
    assert!(open_by(mount.pid()) < 300, "{}", open_by(mount.pid()));
}

#[test]
fn what_cannot_be_read_of_a_directory_keeps_nothing_else_from_being_served() {
    let test = "what_cannot_be_read_of_a_directory_keeps_nothing_else_from_being_served";
    if is_root() && !is_in(test) {
        return run_test_in(test, &format!("{USUAL_DEVICE} && {AS_NOBODY}"), test);
    }
    let mount = Mount::prepared(&["--adopt"], |dir| {
        for (name, mode) in [
            ("closed", 0o000),
            ("unsearchable", 0o600),
            ("unreadable", 0o300),
        ] {
            let own = dir.join(name);
            fs::create_dir(&own).unwrap();
            fs::write(own.join("file"), "x").unwrap();
            fs::create_dir(own.join("sub")).unwrap();
            fs::set_permissions(&own, PermissionsExt::from_mode(mode)).unwrap();
        }
        fs::write(dir.join("entry"), "content").unwrap();
    });
    assert_eq!(fs::read(mount.path("entry")).unwrap(), b"content");
    assert_eq!(fs::read_dir(mount.dir()).unwrap().count(), 4);
    for name in ["closed", "unsearchable", "unreadable"] {
        let beneath = mount.backing().join(name);
        fs::set_permissions(&beneath, PermissionsExt::from_mode(0o700)).unwrap();
    }
}
