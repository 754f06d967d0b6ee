//! What is changed is what was looked at: by descriptor, never twice by a name.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::mount::{Mount, done, kidafs};
use crate::support::situation::is_root;
use crate::support::{entries, live};
use rustix::fs::{CWD, FileType, Mode, RenameFlags};

const APP: u32 = 4001;

/// A file of root's that nobody else may read.
fn secret(mount: &Mount) -> PathBuf {
    let path = mount.folder().join("secret");
    fs::write(&path, "root's").unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

fn look(path: &Path) -> (u32, u32, u32, i64) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.mode(), stat.uid(), stat.gid(), stat.mtime())
}

/// What somebody may put in the place of a name beneath the mount.
type Plant = fn(&Path, &Path);

const PLANTS: [(&str, Plant); 6] = [
    ("a link to a file", |name, secret| {
        symlink(secret, name).unwrap()
    }),
    ("a link to a folder", |name, secret| {
        symlink(secret.parent().unwrap(), name).unwrap();
    }),
    ("a hard link", |name, secret| {
        fs::hard_link(secret, name).unwrap()
    }),
    ("a fifo", |name, _| {
        rustix::fs::mknodat(CWD, name, FileType::Fifo, Mode::RWXU, 0).unwrap();
    }),
    ("a folder", |name, _| fs::create_dir(name).unwrap()),
    ("another user's file", |name, _| {
        fs::write(name, "").unwrap();
        chown(name, Some(4002), Some(4002)).unwrap();
    }),
];

#[test]
fn nothing_that_took_a_names_place_is_changed_through_the_mount() {
    if !is_root() {
        return; // Who may change a file only if it is his own cannot be made to change another's.
    }
    let mount = Mount::new(&["--xattrs"]);
    let secret = secret(&mount);
    let before = look(&secret);
    let folder = look(secret.parent().unwrap());
    for (number, (what, plant)) in PLANTS.iter().enumerate() {
        for kind in ["file", "folder"] {
            let name = format!("{kind}{number}");
            let path = mount.path(&name);
            match kind {
                "file" => drop(mount.commit(&name, "content")),
                _ => fs::create_dir(&path).unwrap(),
            }
            chown(&path, Some(APP), Some(APP)).unwrap();
            let beneath = mount.backing().join(&name);
            fs::rename(&beneath, mount.backing().join("away")).unwrap();
            plant(&beneath, &secret);
            let planted = look(&beneath);
            fs::set_permissions(&path, PermissionsExt::from_mode(0o4755)).unwrap_err();
            chown(&path, Some(APP + 1), None).unwrap_err();
            chown(&path, None, Some(APP + 1)).unwrap_err();
            let file = fs::File::open(&path);
            if let Ok(file) = file {
                let _ = file.set_modified(std::time::SystemTime::UNIX_EPOCH);
            }
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&path, "user.planted", b"x", flags).unwrap_err();
            assert_eq!(look(&beneath), planted, "{what} for a {kind}");
            assert_eq!(look(&secret), before, "{what} for a {kind}");
            assert_eq!(
                look(secret.parent().unwrap()).0,
                folder.0,
                "{what} for a {kind}"
            );
            let _ = fs::remove_file(&beneath).or_else(|_| fs::remove_dir(&beneath));
            fs::rename(mount.backing().join("away"), &beneath).unwrap();
            // In its place again, it can be changed.
            fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
            assert_eq!(look(&beneath).0 & 0o7777, 0o700);
        }
    }
}

#[test]
fn set_id_bits_do_not_reach_the_disk() {
    let mount = Mount::new(&[]);
    let path = mount.commit("program", "x");
    for mode in [0o4755, 0o2755, 0o6711] {
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let beneath = fs::metadata(mount.backing().join("program")).unwrap();
        assert_eq!(beneath.mode() & 0o7777, mode & 0o777);
    }
    // Staged with them, and committed.
    let staged = mount.path("tmpabcdefgh");
    fs::write(&staged, "x").unwrap();
    fs::set_permissions(&staged, PermissionsExt::from_mode(0o4755)).unwrap();
    fs::rename(&staged, mount.path("second")).unwrap();
    let beneath = fs::metadata(mount.backing().join("second")).unwrap();
    assert_eq!(beneath.mode() & 0o7777, 0o755);
    // On a directory the group's bit says whose group new files have.
    fs::create_dir(mount.path("dir")).unwrap();
    fs::set_permissions(mount.path("dir"), PermissionsExt::from_mode(0o6755)).unwrap();
    let beneath = fs::metadata(mount.backing().join("dir")).unwrap();
    assert_eq!(beneath.mode() & 0o7777, 0o2755);
}

/// How long a race is tried: longer by hand.
fn races() -> Duration {
    Duration::from_secs(live::size("KIDAFS_TEST_RACE_SECONDS", 3) as u64)
}

/// Exchanges two names as fast as it can until it is told to stop.
fn swap(first: &Path, second: &Path, until: &AtomicBool) {
    while !until.load(Ordering::Relaxed) {
        let _ = rustix::fs::renameat_with(CWD, first, CWD, second, RenameFlags::EXCHANGE);
    }
}

#[test]
fn a_name_that_is_swapped_all_the_time_leads_no_change_astray() {
    if !is_root() {
        return; // As above.
    }
    let mount = Mount::new(&[]);
    let secret = secret(&mount);
    let before = look(&secret);
    let names = ["file", "made"];
    mount.commit("file", "content");
    chown(mount.path("file"), Some(APP), Some(APP)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for name in names {
            let beneath = mount.backing();
            symlink(&secret, beneath.join(format!("{name}.link"))).unwrap();
            let stop = &stop;
            scope.spawn(move || {
                swap(
                    &beneath.join(name),
                    &beneath.join(format!("{name}.link")),
                    stop,
                );
            });
        }
        let end = Instant::now() + races();
        let mut tries = 0;
        while Instant::now() < end {
            for mode in [0o4777, 0o644] {
                let mode = PermissionsExt::from_mode(mode);
                let _ = fs::set_permissions(mount.path("file"), mode);
            }
            let _ = chown(mount.path("file"), None, Some(APP));
            let _ = fs::create_dir(mount.path("made"));
            let _ = fs::set_permissions(mount.path("made"), PermissionsExt::from_mode(0o777));
            let _ = fs::remove_dir(mount.path("made"));
            // Whatever the swapping has left in its way.
            let _ = fs::remove_file(mount.backing().join("made"));
            let link = mount.backing().join("made.link");
            if fs::symlink_metadata(&link).is_ok_and(|found| found.is_dir()) {
                let _ = fs::remove_dir(&link);
            }
            let _ = symlink(&secret, &link);
            tries += 1;
        }
        stop.store(true, Ordering::Relaxed);
        assert!(tries > 10, "{tries}");
    });
    assert_eq!(look(&secret), before);
}

#[test]
fn what_roots_daemon_leaves_belongs_to_the_directorys_owner() {
    if !is_root() {
        return; // Only root serves another user's directory.
    }
    let folder = live::folder();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let dir = folder.path().join("cache");
    fs::create_dir(&dir).unwrap();
    chown(&dir, Some(APP), Some(APP)).unwrap();
    let mut mount = Mount::over(&dir, None, &["--allow-other"]);
    mount.commit("entry", "content");
    mount.kill9();
    done(std::process::Command::new("umount").arg("-l").arg(&dir));
    for name in ["", "tmp", "quarantine", "lock"] {
        let path = dir.join(".kidafs").join(name);
        assert_eq!(look(&path).1, APP, "{}", path.display());
    }
    // Which a clean end takes away altogether.
    mount.mount(&["--allow-other"]);
    mount.umount();
    assert!(!dir.join(".kidafs").exists());
}

#[test]
fn what_is_planted_in_the_private_folder_is_named_with_its_cure_or_in_nobodys_way() {
    let folder = live::folder();
    let dir = folder.path().join("cache");
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("precious"), "x").unwrap();
    let private = dir.join(".kidafs");
    let fresh = || {
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(private.join("tmp")).unwrap();
    };
    // Folders among the drafts, empty and not, with the names of drafts.
    fresh();
    fs::create_dir_all(private.join("tmp/0/1")).unwrap();
    fs::create_dir_all(private.join("tmp/1")).unwrap();
    symlink(&elsewhere, private.join("tmp/2")).unwrap();
    let mut mount = Mount::over(&dir, None, &[]);
    for number in 0..4 {
        mount.commit(&number.to_string(), "content");
    }
    mount.umount();
    assert!(elsewhere.join("precious").exists());
    // Something else where a folder should be.
    for name in ["tmp", "quarantine"] {
        for link in [true, false] {
            fresh();
            let path = private.join(name);
            let _ = fs::remove_dir(&path);
            match link {
                true => symlink(&elsewhere, &path).unwrap(),
                false => fs::write(&path, "").unwrap(),
            }
            let output = kidafs().arg("mount").arg(&dir).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success());
            let culprit = format!(".kidafs/{name} is not kidafs's own");
            assert!(
                said.contains(&culprit) && said.contains("move it away"),
                "{said}"
            );
            fs::remove_file(&path).unwrap();
            Mount::over(&dir, None, &[]).umount();
        }
    }
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
    // Folders among what is set aside, with the numbers of files.
    fresh();
    for number in 0..70 {
        fs::create_dir_all(private.join(format!("quarantine/{number}.dir"))).unwrap();
    }
    let name = entries::name("a.html", 1);
    fs::write(dir.join(&name), &entries::content(1, 3_000)[..200]).unwrap();
    let mount = Mount::over(&dir, None, &[]);
    let torn = mount.path(&name);
    fs::read(&torn).unwrap_err();
    assert_eq!(fs::read_dir(mount.dir()).unwrap().count(), 0);
    assert_eq!(mount.stats().quarantined, 1);
}
