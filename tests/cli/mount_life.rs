//! The commands that begin and end a mount: umount, run, and the helper of mount(8).

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::cli::run;
use crate::support::daemon::{Folder, folder, is_mount_root};
use crate::support::mount::{Mount, kidafs, text, wait_until_unmounted};
use crate::support::situation::is_root;
use rustix::process::{Pid, Signal};

const ENTRY: &str = "__kida_py314_a.html_0123456789abcdef.pyc";

#[test]
fn umount_leaves_a_busy_mount_alone_unless_it_is_lazy() {
    let mut mount = Mount::prepared(&[], |dir| fs::write(dir.join("a"), b"content").unwrap());
    let dir = mount.dir().to_str().unwrap().to_owned();
    let mut open = File::open(mount.path("a")).unwrap();
    let sentence = run(&["umount", &dir]).failed(1);
    assert!(sentence.contains(" is in use: "), "{sentence}");
    assert!(is_mount_root(mount.dir()));
    let json = run(&["umount", "--lazy", "--json", &dir]).json();
    assert_eq!(json["unmounted"], "detached");
    wait_until_unmounted(mount.dir());
    let mut content = String::new();
    open.read_to_string(&mut content).unwrap();
    assert_eq!(content, "content");
    drop(open);
    mount.wait();
    let sentence = run(&["umount", &dir]).failed(1);
    assert!(sentence.contains("is not a kidafs mount"), "{sentence}");
}

#[test]
fn umount_says_how_it_ended() {
    let mut mount = Mount::new(&[]);
    let dir = mount.dir().to_str().unwrap().to_owned();
    assert_eq!(
        run(&["umount", "--json", &dir]).json()["unmounted"],
        "ended"
    );
    mount.wait();
    mount.mount(&[]);
    mount.kill9();
    assert_eq!(run(&["umount", "--json", &dir]).json()["unmounted"], "dead");
}

/// What `kidafs run` on `dir` comes to, with a shell's script as the command.
fn run_script(dir: &Path, script: &str) -> Output {
    let mut command = kidafs();
    command.arg("run").arg(dir).args(["--", "sh", "-c", script]);
    command.env("DIR", dir).output().unwrap()
}

#[test]
fn run_ends_as_its_command_does_and_leaves_the_files() {
    let folder = folder();
    let dir = folder.path().join("new");
    let output = run_script(&dir, "cat $DIR/.kidafs/pid && echo x > $DIR/a && exit 7");
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    assert!(
        String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse::<u32>()
            .is_ok()
    );
    assert!(!is_mount_root(&dir));
    assert_eq!(fs::read(dir.join("a")).unwrap(), b"x\n");
    let output = run_script(&dir, "kill -9 $$");
    assert_eq!(output.status.code(), Some(128 + 9));
    // Of what is no entry a sentence would be said.
    fs::remove_file(dir.join("a")).unwrap();
    let shown = dir.to_str().unwrap();
    let sentence = run(&["run", shown, "--", "/nowhere/program"]).failed(127);
    assert!(
        sentence.contains("cannot run /nowhere/program"),
        "{sentence}"
    );
    assert!(!is_mount_root(&dir));
}

#[test]
fn run_passes_signals_on_and_unmounts_after_them() {
    let folder = folder();
    let dir = folder.path().join("cache");
    let mut command = kidafs();
    command.arg("run").arg(&dir).arg("--");
    let mut child = command
        .args(["sh", "-c", "trap 'exit 9' TERM; echo ready; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut ready)
        .unwrap();
    assert!(is_mount_root(&dir));
    rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    // `wait` would close standard input, and `read` is to be ended by the signal.
    let mut stdin = child.stdin.take().unwrap();
    let status = child.wait().unwrap();
    let _ = stdin.write_all(b"\n");
    assert_eq!((status.code(), status.signal()), (Some(9), None));
    assert!(!is_mount_root(&dir));
}

/// A folder with a link to the binary under a helper's name.
fn helper(name: &str) -> (Folder, PathBuf) {
    let folder = folder();
    let link = folder.path().join(name);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kidafs"), &link).unwrap();
    (folder, link)
}

/// The helper's command, with the environment of `kidafs()`.
fn call(link: &Path, arguments: &[&str]) -> Output {
    let mut command = kidafs();
    // The environment alone is kept: another program is run.
    let mut own = Command::new(link);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => own.env(name, value),
            None => own.env_remove(name),
        };
    }
    command = own;
    command.args(arguments).output().unwrap()
}

#[test]
fn the_helper_mounts_as_mount_calls_it() {
    for name in ["mount.kidafs", "mount.fuse.kidafs"] {
        let (folder, link) = helper(name);
        let dir = folder.path().join("cache");
        let shown = dir.to_str().unwrap();
        let options = "rw,noauto,x-systemd.automount,max-size=2MiB,memory=1MiB";
        let output = call(
            &link,
            &["none", shown, "-n", "-v", "-o", options, "-t", "kidafs"],
        );
        assert!(output.status.success(), "{}", text(&output));
        let stats = run(&["stats", "--json", shown]).json();
        assert_eq!(stats["disk"]["budget_bytes"], 2 << 20);
        assert_eq!(stats["backing"], shown);
        let told = fs::read_to_string(dir.join(".kidafs/config.json")).unwrap();
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["max-size"]["origin"], "mount-option");
        run(&["umount", shown]).done();
    }
}

#[test]
fn the_helpers_source_is_the_backing_directory() {
    let (folder, link) = helper("mount.kidafs");
    let (dir, backing) = (folder.path().join("cache"), folder.path().join("backing"));
    let (dir, backing) = (dir.to_str().unwrap(), backing.to_str().unwrap());
    let output = call(&link, &[backing, dir, "-o", "ro"]);
    assert!(output.status.success(), "{}", text(&output));
    let stats = run(&["stats", "--json", dir]).json();
    assert_eq!(stats["backing"], backing);
    assert_eq!(stats["read_only"], true);
    run(&["umount", dir]).done();
}

#[test]
fn the_helper_refuses_what_kidafs_mount_refuses() {
    let (folder, link) = helper("mount.kidafs");
    let dir = folder.path().join("cache");
    let shown = dir.to_str().unwrap();
    for (arguments, status, says) in [
        (
            &["none", shown, "-o", "colour=red"][..],
            2,
            "is not an option",
        ),
        (&["none", shown, "-o", "max-size"], 2, "needs a value"),
        (&["none", shown, "-f", "-o", "suid"], 2, "always nosuid"),
        (&["none"], 2, "Usage: mount.kidafs"),
        (&["none", shown, "-f", "-o", "max-size=1GiB"], 0, ""),
    ] {
        let output = call(&link, arguments);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.contains(says), "{said}");
        assert!(!dir.exists(), "{arguments:?}");
    }
}

/// mount(8) looks for helpers in /sbin alone, so it is given a /sbin of its own.
#[test]
fn mount_8_mounts_what_is_in_fstab() {
    if !is_root() || Command::new("unshare").arg("--version").output().is_err() {
        eprintln!("not tested: it takes root and unshare(1)");
        return;
    }
    fstab("mount.kidafs", "kidafs");
    fstab("mount.fuse.kidafs", "fuse.kidafs");
}

fn fstab(helpers_name: &str, kind: &str) {
    let (folder, link) = helper(helpers_name);
    let dir = folder.path().join("cache");
    fs::create_dir(&dir).unwrap();
    fs::create_dir(folder.path().join("backing")).unwrap();
    let fstab = folder.path().join("fstab");
    let line = format!(
        "{0}/backing {0}/cache {kind} max-entries=77,nofail 0 0\n",
        folder.path().display()
    );
    fs::write(&fstab, line).unwrap();
    // By a rename, because umount(8) does not wait for the daemon.
    let script = r#"mount --bind "$FOLDER" /sbin
        mount -T "$FOLDER/fstab" "$FOLDER/cache"
        grep -o '"budget_files":[0-9]*' "$FOLDER/cache/.kidafs/stats.json" | tail -n 1
        echo x > "$FOLDER/cache/$ENTRY.tmp"
        mv "$FOLDER/cache/$ENTRY.tmp" "$FOLDER/cache/$ENTRY"
        umount "$FOLDER/cache""#;
    assert!(link.exists());
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-euc", script])
        .env("FOLDER", folder.path())
        .env("ENTRY", ENTRY)
        .env("KIDAFS_CONFIG", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "\"budget_files\":77"
    );
    assert_eq!(
        fs::read(folder.path().join("backing").join(ENTRY)).unwrap(),
        b"x\n"
    );
}
