//! The ends of a real daemon, and what is in the backing directory afterwards.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use crate::support::daemon::is_mount_root;
use crate::support::mount::{Mount, done, kidafs, text, wait_for, wait_until_unmounted};
use crate::support::situation::is_root;
use rustix::process::Signal;

/// Unmounts as anybody would, without kidafs.
fn unmount_by_hand(dir: &Path) {
    wait_for("the unmount", || {
        let mut command = match is_root() {
            true => Command::new("umount"),
            false => Command::new("fusermount3"),
        };
        let output = command
            .args((!is_root()).then_some("-u"))
            .arg(dir)
            .output()
            .unwrap();
        let said = text(&output);
        assert!(output.status.success() || said.contains("busy"), "{said}");
        output.status.success().then_some(())
    });
}

#[test]
fn orderly_end() {
    type End = fn(&mut Mount);
    let ends: [(&str, End); 4] = [
        ("kidafs umount", Mount::umount),
        ("SIGTERM", |mount| mount.signal(Signal::TERM)),
        ("SIGINT", |mount| mount.signal(Signal::INT)),
        ("an external unmount", |mount| unmount_by_hand(mount.dir())),
    ];
    for (name, end) in ends {
        for mut mount in [Mount::new(&[]), Mount::backed(&[])] {
            mount.commit("committed", "committed");
            fs::create_dir(mount.path("dir")).unwrap();
            fs::write(mount.path("dir/tmpabcdefgh"), "staged").unwrap();
            // Not quiet yet: it is the end that writes them.
            fs::write(mount.path("dir/in-place"), "in place").unwrap();
            fs::write(mount.path("empty"), "").unwrap();
            end(&mut mount);
            mount.wait();
            assert!(!is_mount_root(mount.dir()), "{name}");
            let beneath = mount.backing();
            assert_eq!(
                fs::read(beneath.join("committed")).unwrap(),
                b"committed",
                "{name}"
            );
            assert_eq!(
                fs::read(beneath.join("dir/in-place")).unwrap(),
                b"in place",
                "{name}"
            );
            assert_eq!(fs::read(beneath.join("empty")).unwrap(), b"", "{name}");
            assert!(!beneath.join("dir/tmpabcdefgh").exists(), "{name}");
            let log = mount.log();
            let other = log.lines().find(|line| !line.contains("kidafs::events"));
            assert_eq!(other, None, "{name}");
            // It can be mounted again at once.
            mount.mount(&[]);
            assert_eq!(fs::read(mount.path("dir/in-place")).unwrap(), b"in place");
        }
    }
}

#[test]
fn a_daemon_in_the_foreground_tells_how_it_ended() {
    let folder = crate::support::daemon::folder();
    let dir = folder.path().join("cache");
    let mut daemon = kidafs()
        .args(["mount", "--foreground"])
        .arg(&dir)
        .spawn()
        .unwrap();
    wait_for("the mount", || fs::read(dir.join(".kidafs/pid")).ok());
    fs::write(dir.join("in-place"), "content").unwrap();
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    assert_eq!(fs::read(dir.join("in-place")).unwrap(), b"content");
}

#[test]
fn crash() {
    for mut mount in [Mount::new(&[]), Mount::backed(&[])] {
        // Killed as soon as a rename has returned, again and again.
        for round in 0..5 {
            let name = format!("entry{round}");
            let content = name.repeat(10_000);
            fs::write(mount.path("tmpother000"), "never committed").unwrap();
            mount.commit(&name, &content);
            mount.kill9();
            let beneath = mount.backing();
            assert_eq!(fs::read_to_string(beneath.join(&name)).unwrap(), content);
            assert!(!beneath.join("tmpother000").exists());
            // The dead mount is on the directory still; the next one detaches it.
            assert!(is_mount_root(mount.dir()));
            let error = fs::read_dir(mount.dir()).unwrap_err();
            assert_eq!(
                rustix::io::Errno::from_io_error(&error),
                Some(rustix::io::Errno::NOTCONN)
            );
            mount.mount(&[]);
            for earlier in 0..=round {
                let name = format!("entry{earlier}");
                assert_eq!(
                    fs::read_to_string(mount.path(&name)).unwrap(),
                    name.repeat(10_000)
                );
            }
            assert_eq!(fs::read_dir(mount.dir()).unwrap().count(), round + 1);
        }
        mount.umount();
        assert!(!is_mount_root(mount.dir()), "no dead mount is left beneath");
    }
}

#[test]
fn after_kill_the_plain_directory_goes_on_once_the_dead_mount_is_detached() {
    let mut mount = Mount::new(&[]);
    mount.commit("entry", "content");
    mount.kill9();
    // Not only by the next mount.
    let said = mount.run(&["umount", mount.dir().to_str().unwrap()]);
    assert!(said.contains("its daemon had died"), "{said}");
    assert_eq!(fs::read(mount.path("entry")).unwrap(), b"content");
    fs::write(mount.path("new.tmp"), "plain").unwrap();
    fs::rename(mount.path("new.tmp"), mount.path("entry")).unwrap();
    mount.mount(&[]);
    assert_eq!(fs::read(mount.path("entry")).unwrap(), b"plain");
}

#[test]
fn told_to_end_while_a_file_is_open_it_goes_once_that_is_closed() {
    let mut mount = Mount::new(&[]);
    let mut open = File::options()
        .read(true)
        .write(true)
        .open(mount.commit("entry", "content"))
        .unwrap();
    mount.signal(Signal::TERM);
    wait_until_unmounted(mount.dir());
    // The plain directory is there already, and what is open is served to the end.
    let mut content = String::new();
    open.read_to_string(&mut content).unwrap();
    assert_eq!(content, "content");
    open.write_all(b" and more").unwrap();
    drop(open);
    mount.wait();
    assert_eq!(fs::read(mount.path("entry")).unwrap(), b"content and more");
}

#[test]
fn a_mount_in_use_is_refused_to_umount_and_detached_when_asked() {
    let mut mount = Mount::new(&[]);
    let open = File::open(mount.commit("entry", "content")).unwrap();
    let output = kidafs().arg("umount").arg(mount.dir()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("is in use"), "{}", text(&output));
    assert_eq!(fs::read(mount.path("entry")).unwrap(), b"content");
    done(kidafs().args(["umount", "--lazy"]).arg(mount.dir()));
    assert!(!is_mount_root(mount.dir()));
    drop(open);
    mount.wait();
}

#[test]
fn run_serves_for_one_command_and_has_its_status() {
    let folder = crate::support::daemon::folder();
    let dir = folder.path().join("cache");
    let script = "echo content >\"$0/tmpabcdefgh\" && mv \"$0/tmpabcdefgh\" \"$0/entry\" && test -e \"$0/.kidafs/pid\"; exit $(( $? + 7 ))";
    let output = kidafs()
        .arg("run")
        .arg(&dir)
        .args(["--", "sh", "-c", script])
        .arg(&dir)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    assert!(!is_mount_root(&dir));
    assert_eq!(fs::read(dir.join("entry")).unwrap(), b"content\n");
}

#[test]
fn an_ordinary_user_has_the_same_promises() {
    crate::support::situation::run_as_ordinary_user();
}
