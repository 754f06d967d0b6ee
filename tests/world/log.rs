//! It can be asked what happened.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use crate::support::cli::v2;
use crate::support::daemon::folder;
use crate::support::mount::{Mount, done, kidafs, wait_for};
use crate::support::situation::{is_in, is_root, run_test_in};
use rustix::process::Signal;

/// A `/dev` of its own, in which a test can listen as journald and syslogd do.
const OWN_DEV: &str = "chown 0:0 \"$TMPDIR\" && mkdir \"$TMPDIR/dev\" && mount -t tmpfs none \"$TMPDIR/dev\" && \
    mknod -m 666 \"$TMPDIR/dev/fuse\" c 10 229 && mknod -m 666 \"$TMPDIR/dev/null\" c 1 3 && \
    mknod -m 666 \"$TMPDIR/dev/urandom\" c 1 9 && mount --move \"$TMPDIR/dev\" /dev && exec";

#[test]
fn in_the_background_mounts_ends_restarts_and_evictions_go_to_the_machines_log() {
    const SITUATION: &str = "machine-log";
    if is_in(SITUATION) {
        let log = UnixDatagram::bind("/dev/log").unwrap();
        log.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let next = |wanted: &str| loop {
            let mut line = [0; 2000];
            let length = log
                .recv(&mut line)
                .unwrap_or_else(|error| panic!("{wanted}: {error}"));
            let line = String::from_utf8_lossy(&line[..length]).into_owned();
            assert!(line.starts_with("<2") || line.starts_with("<3"), "{line}");
            assert!(line.contains("kidafs["), "{line}");
            assert!(!line.contains('\n'), "{line}");
            if line.contains(wanted) {
                return line;
            }
        };
        let dir = std::env::temp_dir().join("dir");
        let mut command = kidafs();
        command.env_remove("KIDAFS_SUPERVISE");
        done(command.args(["mount", "--max-entries", "3"]).arg(&dir));
        next("is served");
        for number in 0..8 {
            fs::write(dir.join("tmpabcdefgh"), v2()).unwrap();
            let entry = format!("__kida_py314_{number}.html_000000000000000{number}.pyc");
            fs::rename(dir.join("tmpabcdefgh"), dir.join(entry)).unwrap();
        }
        done(kidafs().arg("sweep").arg(&dir));
        let daemon = fs::read_to_string(dir.join(".kidafs/pid")).unwrap();
        done(Command::new("kill").arg("-KILL").arg(daemon.trim()));
        next("died");
        next("is served again");
        done(kidafs().arg("umount").arg(&dir));
        next("is served no more");

        done(kidafs().args(["mount", "--max-entries", "2"]).arg(&dir));
        next("is served");
        done(kidafs().arg("sweep").arg(&dir));
        done(kidafs().arg("umount").arg(&dir));
        next("is served no more");
        let told = next("evicted from");
        assert!(told.contains("budget"), "{told}");
    } else if is_root() {
        run_test_in(
            SITUATION,
            OWN_DEV,
            "in_the_background_mounts_ends_restarts_and_evictions_go_to_the_machines_log",
        );
    }
}

#[test]
fn sighup_opens_the_log_file_anew_in_the_daemon_and_in_its_supervisor() {
    let mount = Mount::new(&[]);
    let log = mount.folder().join("log");
    let rotated = mount.folder().join("log.1");
    wait_for("the first line", || {
        mount.log().contains("is served").then_some(())
    });
    fs::rename(&log, &rotated).unwrap();
    mount.signal(Signal::HUP);
    wait_for("a new file", || log.exists().then_some(()));
}

#[test]
fn a_log_file_that_is_a_link_is_refused() {
    let folder = folder();
    let (dir, link) = (folder.path().join("dir"), folder.path().join("link"));
    std::os::unix::fs::symlink(folder.path().join("victim"), &link).unwrap();
    let output = kidafs()
        .arg("mount")
        .arg("--log-file")
        .arg(&link)
        .arg(&dir)
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(!folder.path().join("victim").exists());
}

#[test]
fn a_line_of_fstab_names_the_log_file() {
    let folder = folder();
    let (dir, log) = (folder.path().join("dir"), folder.path().join("log"));
    let option = format!("log-file={}", log.display());
    done(kidafs().args(["mount", "-o", &option]).arg(&dir));
    done(kidafs().arg("umount").arg(&dir));
    let log = fs::read_to_string(log).unwrap();
    assert!(
        log.contains("is served\n") && log.contains("is served no more"),
        "{log}"
    );
}
