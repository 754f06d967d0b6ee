//! The tools that people use on directories, on a real mount.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::loopfs::{Kind, LoopFs};
use crate::support::mount::{Mount, done, kidafs, text};
use crate::support::situation::is_root;

/// Runs a script with the mount as its working directory, and returns what it prints.
fn shell(mount: &Mount, script: &str) -> String {
    let mut command = Command::new("sh");
    let command = command.args(["-euc", script]).env("LC_ALL", "C");
    done(
        command
            .env("TZ", "UTC")
            .env("FOLDER", mount.folder())
            .current_dir(mount.dir()),
    )
}

/// A tree with what a cache directory holds, and what else copies must keep.
fn plant(root: &Path) {
    let write = |name: &str, content: &[u8], mode: u32, mtime: &str| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        done(Command::new("touch").arg("-d").arg(mtime).arg(&path));
    };
    let big: Vec<u8> = (0..400_000_u32).map(|at| (at % 253) as u8).collect();
    write(
        "__jinja2_0123456789abcdef.cache",
        &big[..10_000],
        0o600,
        "2024-02-29 12:34:56.123456789Z",
    );
    write(
        "__jinja2_fedcba9876543210.cache",
        b"page",
        0o644,
        "2031-01-01 00:00:00.000000001Z",
    );
    write("empty", b"", 0o640, "1969-12-31 23:59:59.5Z");
    write("name with space", b"x", 0o444, "2040-06-01 01:02:03Z");
    write("sub/folder/big", &big, 0o755, "2001-09-09 01:46:40Z");
    write(
        "sub/__pycache__/mod.cpython-314.pyc",
        b"pyc",
        0o600,
        "2020-02-20 20:20:20.2Z",
    );
    symlink("sub/folder/big", root.join("link")).unwrap();
    symlink("nowhere", root.join("sub/dangling")).unwrap();
    let touch =
        "touch -h -d '2022-02-02 02:02:02.2Z' link sub/dangling sub/folder sub/__pycache__ sub";
    done(Command::new("sh").args(["-c", touch]).current_dir(root));
}

/// A line for everything below `root`: kind, mode, owner, size, mtime, target, digest of the content; and with
/// `xattrs` its extended attributes.
fn facts(root: &Path, xattrs: bool) -> String {
    let script = "find . -mindepth 1 -path ./.kidafs -prune -o -printf '%P %y %m %U %G %l ' \
        \\( -type d -printf '%T@\\n' -o -printf '%s %T@\\n' \\) | sort; \
        find . -path ./.kidafs -prune -o -type f -exec sha256sum {} + | sort -k 2";
    let attributes =
        "; find . -path ./.kidafs -prune -o -type f -exec getfattr -d -m '^user[.]note$' {} +";
    let script = format!("{script}{}", if xattrs { attributes } else { "" });
    let mut command = Command::new("sh");
    done(
        command
            .args(["-euc", &script])
            .env("LC_ALL", "C")
            .current_dir(root),
    )
}

/// Runs `copy` from one directory to another, and compares; without extended attributes and with them.
fn copies(copy: &str) {
    copies_with(copy, false, &[]);
    copies_with(copy, true, &["--xattrs"]);
}

fn copies_with(copy: &str, xattrs: bool, options: &[&str]) {
    let mut mount = Mount::new(options);
    let facts = |root: &Path| facts(root, xattrs);
    let (from, back) = (mount.folder().join("from"), mount.folder().join("back"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&back).unwrap();
    plant(&from);
    if xattrs {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(from.join("empty"), "user.note", b"kept", flags).unwrap();
    }
    let expected = facts(&from);
    let lines = 11 + 6 + if xattrs { 3 } else { 0 };
    assert_eq!(expected.matches('\n').count(), lines, "{expected}");
    let run = |from: &Path, to: &Path| {
        let mut command = Command::new("sh");
        done(command.args(["-euc", copy]).env("FROM", from).env("TO", to));
    };
    run(&from, mount.dir());
    assert_eq!(facts(mount.dir()), expected, "on the mount");
    // A second run changes nothing.
    run(&from, mount.dir());
    assert_eq!(facts(mount.dir()), expected, "copied twice");
    run(mount.dir(), &back);
    assert_eq!(facts(&back), expected, "copied back");
    mount.umount();
    assert_eq!(facts(mount.dir()), expected, "in the plain directory");
    mount.mount(options);
    assert_eq!(facts(mount.dir()), expected, "mounted again");
}

#[test]
fn cp_keeps_everything() {
    copies("cp -a --remove-destination \"$FROM/.\" \"$TO\"");
}

#[test]
fn rsync_keeps_everything() {
    copies("rsync -aX --exclude=/.kidafs \"$FROM/\" \"$TO/\"");
}

#[test]
fn tar_keeps_everything() {
    copies(
        "tar --create --format=posix --xattrs --exclude=./.kidafs -C \"$FROM\" . | tar --extract --xattrs -C \"$TO\"",
    );
}

#[test]
fn rsync_finds_nothing_to_do_the_second_time() {
    let mount = Mount::new(&[]);
    let from = mount.folder().join("from");
    fs::create_dir(&from).unwrap();
    plant(&from);
    let sync = "rsync -aX --itemize-changes \"$FOLDER/from/\" ./";
    assert_ne!(shell(&mount, sync), "");
    assert_eq!(shell(&mount, sync), "");
    assert_eq!(shell(&mount, &format!("{sync} --checksum")), "");
    fs::write(from.join("empty"), "changed").unwrap();
    assert_eq!(shell(&mount, sync).lines().count(), 1);
    // In place, and with its temporary files elsewhere.
    fs::write(from.join("empty"), "changed again").unwrap();
    shell(&mount, &format!("{sync} --inplace"));
    assert_eq!(fs::read(mount.path("empty")).unwrap(), b"changed again");
    fs::remove_file(from.join("empty")).unwrap();
    shell(&mount, &format!("{sync} --delete"));
    assert!(!mount.path("empty").exists());
}

#[test]
fn ls_shows_modes_sizes_and_full_times() {
    let mount = Mount::new(&[]);
    plant(mount.dir());
    let listed = shell(&mount, "ls -la --full-time");
    let line = |name: &str| {
        let line = listed.lines().find(|line| line.ends_with(name));
        line.unwrap_or_else(|| panic!("{name} is not in {listed}"))
            .to_owned()
    };
    let entry = line("__jinja2_0123456789abcdef.cache");
    assert!(entry.starts_with("-rw------- 1 "), "{entry}");
    assert!(
        entry.contains(" 10000 2024-02-29 12:34:56.123456789 +0000 "),
        "{entry}"
    );
    assert!(line("empty").contains(" 0 1969-12-31 23:59:59.500000000 +0000 "));
    assert!(line("link -> sub/folder/big").starts_with("lrwxrwxrwx 1 "));
    assert!(line(" sub").starts_with("drwx"));
    assert!(!listed.contains(".kidafs"));
    let inodes = shell(&mount, "ls -i1 | sort; ");
    assert_eq!(inodes.lines().count(), 6, "{inodes}");
}

#[test]
fn find_sees_every_file_in_every_folder() {
    let mount = Mount::new(&[]);
    // Many folders in one: a link count that is taken for their number would hide some.
    shell(
        &mount,
        "for a in 1 2 3 4 5 6; do for b in 1 2 3; do mkdir -p $a/$b; : >$a/$b/file; done; done",
    );
    for find in ["find", "find -noleaf", "find -L"] {
        let rest = if find == "find -noleaf" {
            ". -noleaf"
        } else {
            "."
        };
        let command = find.replace(" -noleaf", "");
        let found = shell(&mount, &format!("{command} {rest} -type f"));
        assert_eq!(found.lines().count(), 18, "{find}: {found}");
    }
    assert_eq!(
        shell(
            &mount,
            "find . -newermt 2000-01-01 -type f -size 0 -links 1"
        )
        .lines()
        .count(),
        18
    );
    assert_eq!(shell(&mount, "grep -rc x . | grep -c :0").trim(), "18");
}

#[test]
fn du_counts_blocks_and_df_shows_the_budget() {
    let mount = Mount::new(&["--max-size=100MiB", "--max-entries=1000"]);
    fs::create_dir(mount.path("sub")).unwrap();
    for at in 0..10 {
        mount.commit(&format!("sub/entry{at}"), vec![b'x'; 10_000]);
    }
    // Ten files of three blocks, and the directory's own.
    let used = shell(&mount, "du -s --block-size=1 sub")
        .split_once('\t')
        .unwrap()
        .0
        .parse::<u64>()
        .unwrap();
    assert_eq!(used, 10 * 3 * 4096 + 4096);
    assert_eq!(
        shell(&mount, "du --apparent-size --block-size=1 sub/entry0"),
        "10000\tsub/entry0\n"
    );
    let df = shell(
        &mount,
        "df --block-size=1 --output=source,fstype,size,used,itotal,iused,target . | tail -n 1",
    );
    let fields: Vec<_> = df.split_whitespace().collect();
    assert_eq!(
        fields[..4],
        ["kidafs", "fuse.kidafs", "104857600", "122880"]
    );
    assert_eq!(fields[4..6], ["1000", "10"]);
    assert_eq!(fields[6], mount.dir().to_str().unwrap());
}

#[test]
fn df_shows_what_is_used_whatever_the_disk_beneath_has() {
    if !is_root() {
        // Another filesystem takes root; the sums are the same for everybody.
        return;
    }
    let folder = crate::support::daemon::folder();
    let small = LoopFs::make(folder.path(), Kind::Tmpfs, 64 << 20);
    let dir = small.directory("cache");
    let mount = Mount::over(&dir, None, &[]);
    let df = |columns: &str| -> Vec<u64> {
        let output = done(
            Command::new("df")
                .arg("--block-size=1")
                .arg(format!("--output={columns}"))
                .arg(&dir),
        );
        let line = output.lines().last().unwrap();
        let fields = line.split_whitespace();
        fields.map(|field| field.parse().unwrap()).collect()
    };
    let empty = df("size,used,avail");
    assert_eq!(empty[1], 0, "{empty:?}");
    assert_eq!(empty[0], empty[2], "{empty:?}");
    assert!((50 << 20..=64 << 20).contains(&empty[0]), "{empty:?}");
    mount.commit("entry", vec![b'x'; 10 << 20]);
    assert_eq!(df("used")[0], 10 << 20);
    assert!(df("size")[0] <= 64 << 20);
    let files = df("itotal,iused,iavail");
    assert_eq!(files[1], 1, "{files:?}");
    assert_eq!(files[0], files[1] + files[2], "{files:?}");
    assert!(files[0] <= df_inodes(small.path()), "{files:?}");
}

fn df_inodes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).unwrap().f_files
}

#[test]
fn directories_have_as_many_links_as_folders_and_two() {
    let mut mount = Mount::new(&[]);
    let links = |mount: &Mount, path: &str| fs::metadata(mount.path(path)).unwrap().nlink();
    fs::create_dir_all(mount.path("a/b/c")).unwrap();
    fs::create_dir(mount.path("a/d")).unwrap();
    fs::write(mount.path("a/file"), "x").unwrap();
    assert_eq!(
        ["", "a", "a/b", "a/b/c"].map(|path| links(&mount, path)),
        [3, 4, 3, 2]
    );
    fs::rename(mount.path("a/d"), mount.path("a/b/d")).unwrap();
    assert_eq!(["", "a", "a/b"].map(|path| links(&mount, path)), [3, 3, 4]);
    // Over an empty directory, and in exchange for a file.
    fs::rename(mount.path("a/b/d"), mount.path("a/b/c")).unwrap();
    assert_eq!(links(&mount, "a/b"), 3);
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    let (file, folder) = (mount.path("a/file"), mount.path("a/b/c"));
    rustix::fs::renameat_with(rustix::fs::CWD, file, rustix::fs::CWD, folder, exchange).unwrap();
    assert_eq!(["a", "a/b"].map(|path| links(&mount, path)), [4, 2]);
    fs::remove_dir(mount.path("a/file")).unwrap();
    assert_eq!(links(&mount, "a"), 3);
    mount.remount();
    assert_eq!(["", "a", "a/b"].map(|path| links(&mount, path)), [3, 3, 2]);
}

#[test]
fn touch_mv_and_the_like() {
    let mount = Mount::new(&[]);
    shell(
        &mount,
        "touch new; touch -d '2020-01-01 00:00:00.5Z' new; test \"$(stat -c %Y new)\" = 1577836800
         echo content >file; mv file renamed; test ! -e file; mv -n renamed new; test -e renamed
         mkdir dir; mv renamed dir/; cp dir/renamed dir/copy; cmp dir/renamed dir/copy
         mv -T dir other; mv \"$PWD/other\" \"$FOLDER/outside\"; test ! -e other
         mv \"$FOLDER/outside\" back; test \"$(cat back/renamed)\" = content
         ln -s back/renamed link; cat link >/dev/null; ln -sfn back link; test -e link/copy
         install -m 640 back/copy installed; test \"$(stat -c %a installed)\" = 640
         dd if=/dev/zero of=zeros bs=1000 count=100 conv=fsync status=none; test \"$(stat -c %s zeros)\" = 100000
         truncate -s 10 zeros; test \"$(wc -c <zeros)\" = 10
         sed -i s/content/other/ back/copy; test \"$(cat back/copy)\" = other
         sort -o back/copy back/copy; echo more >>back/copy; test \"$(tail -n 1 back/copy)\" = more
         chmod u+w,go= back/copy; sync back/copy; sync -f .
         rmdir back 2>/dev/null && exit 1; rm -r back; test ! -e back",
    );
}

#[test]
fn rm_rf() {
    let mut mount = Mount::new(&[]);
    plant(mount.dir());
    shell(&mount, "rm -rf ./*");
    assert_eq!(shell(&mount, "ls -A"), "");
    plant(mount.dir());
    // The mount point itself is in use: everything in it goes, then that is the error.
    let output = Command::new("rm")
        .arg("-rf")
        .arg(mount.dir())
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = text(&output);
    assert!(message.contains("Device or resource busy"), "{message}");
    assert_eq!(message.lines().count(), 2, "{message}");
    assert_eq!(shell(&mount, "ls -A"), "");
    let beneath = fs::read_dir(mount.backing()).unwrap().count();
    assert_eq!(beneath, 1, "only .kidafs is left");
    mount.umount();
}

#[test]
fn entries_are_not_executed_nor_devices_used_nor_set_ids_honoured() {
    let mount = Mount::new(&[]);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table
        .lines()
        .find(|line| line.contains(mount.dir().to_str().unwrap()))
        .unwrap();
    let options = line.split(' ').nth(5).unwrap();
    for option in ["rw", "nosuid", "nodev", "noexec"] {
        assert!(options.split(',').any(|found| found == option), "{line}");
    }
    let script = mount.commit("script", "#!/bin/sh\n");
    fs::set_permissions(&script, PermissionsExt::from_mode(0o4755)).unwrap();
    assert_eq!(fs::metadata(&script).unwrap().mode() & 0o7777, 0o4755);
    let error = Command::new(&script).status().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn a_read_only_mount_serves_and_refuses() {
    let mut mount = Mount::prepared(&["--read-only"], plant);
    let before = facts(mount.dir(), false);
    for command in [
        "touch new",
        "rm empty",
        "mkdir new",
        "mv empty new",
        "chmod 600 empty",
        "ln -s x new",
        "cat /proc/self/stat >>empty",
        "truncate -s 1 empty",
        "touch -d 2020-01-01 empty",
        "rmdir sub/folder",
    ] {
        let mut shell = Command::new("sh");
        let output = shell
            .args(["-c", command])
            .env("LC_ALL", "C")
            .current_dir(mount.dir())
            .output()
            .unwrap();
        assert!(!output.status.success(), "{command}");
        assert!(
            text(&output).contains("Read-only file system"),
            "{}",
            text(&output)
        );
    }
    assert_eq!(facts(mount.dir(), false), before);
    assert!(
        kidafs()
            .args(["stats", "--json"])
            .arg(mount.dir())
            .output()
            .unwrap()
            .status
            .success()
    );
    mount.umount();
    assert_eq!(facts(mount.dir(), false), before);
}

#[test]
fn an_ordinary_user_has_the_same_promises() {
    crate::support::situation::run_as_ordinary_user();
    assert!(is_root() || Path::new("/dev/fuse").exists());
}
