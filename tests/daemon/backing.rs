//! A backing directory is served by one daemon only, and only if nobody else can have written it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use crate::support::daemon::folder;
use crate::support::situation::{is_in, is_root, run_test_in};
use kidafs::daemon::backing::{Backing, BackingError, Sharing, create};

fn open(path: &Path) -> Result<Backing, BackingError> {
    Backing::open(path, Sharing::default())
}

fn refusal(path: &Path) -> String {
    open(path).unwrap_err().to_string()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn a_second_daemon_is_refused_by_the_first_ones_process_id() {
    let dir = folder();
    let first = open(dir.path()).unwrap();
    let refusal = refusal(dir.path());
    assert!(
        refusal.contains(&format!("process {}", std::process::id())),
        "{refusal}"
    );
    assert!(refusal.contains("unmount that one first"), "{refusal}");
    drop(first);
    open(dir.path()).unwrap();
}

#[test]
fn what_a_dead_daemon_left_in_the_lock_file_does_not_count() {
    let dir = folder();
    drop(open(dir.path()).unwrap());
    let lock = dir.path().join(".kidafs/lock");
    fs::write(&lock, "1\nand more of it\n").unwrap();
    let _held = open(dir.path()).unwrap();
    assert_eq!(
        fs::read_to_string(&lock).unwrap(),
        format!("{}\n", std::process::id())
    );
}

#[test]
fn nonsense_in_a_held_lock_file_does_no_harm() {
    let dir = folder();
    let _held = open(dir.path()).unwrap();
    for nonsense in ["", "-5", "0", "99999999999999999999", "x", "\u{fffd}"] {
        fs::write(dir.path().join(".kidafs/lock"), nonsense).unwrap();
        assert!(matches!(
            open(dir.path()),
            Err(BackingError::Locked { pid: None, .. })
        ));
    }
}

#[test]
fn the_private_folder_is_its_owners_alone() {
    let dir = folder();
    fs::create_dir(dir.path().join(".kidafs")).unwrap();
    set_mode(&dir.path().join(".kidafs"), 0o755);
    let _held = open(dir.path()).unwrap();
    assert_eq!(mode(&dir.path().join(".kidafs")), 0o700);
    assert_eq!(mode(&dir.path().join(".kidafs/lock")) & 0o177, 0);
}

#[test]
fn a_symbolic_link_in_place_of_the_private_folder_is_refused() {
    let (dir, elsewhere) = (folder(), folder());
    symlink(elsewhere.path(), dir.path().join(".kidafs")).unwrap();
    assert!(refusal(dir.path()).contains("symbolic link"));
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn a_symbolic_link_in_place_of_the_lock_is_refused() {
    let (dir, elsewhere) = (folder(), folder());
    let victim = elsewhere.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    drop(open(dir.path()).unwrap());
    let lock = dir.path().join(".kidafs/lock");
    fs::remove_file(&lock).unwrap();
    symlink(&victim, &lock).unwrap();
    assert!(refusal(dir.path()).contains("symbolic link"));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn a_directory_or_a_fifo_in_place_of_the_lock_is_refused() {
    let dir = folder();
    drop(open(dir.path()).unwrap());
    let lock = dir.path().join(".kidafs/lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    assert!(refusal(dir.path()).contains("directory"));
    fs::remove_dir(&lock).unwrap();
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &lock, kind, rustix::fs::Mode::RWXU, 0).unwrap();
    assert!(refusal(dir.path()).contains("regular file"));
}

#[test]
fn of_daemons_that_start_at_once_one_gets_the_lock() {
    let dir = folder();
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let path = dir.path().to_owned();
            std::thread::spawn(move || open(&path))
        })
        .collect();
    let held: Vec<_> = starts
        .into_iter()
        .filter_map(|start| start.join().unwrap().ok())
        .collect();
    assert_eq!(held.len(), 1);
}

#[test]
fn a_directory_that_everybody_can_write_is_refused_with_its_cure() {
    let dir = folder();
    let path = dir.path().display();
    // One like /tmp is meant to be everybody's: to change its mode would harm others.
    for (mode, cure) in [
        (0o777, format!("chmod o-w {path}")),
        (0o702, format!("chmod o-w {path}")),
        (0o1777, "make a directory of your own in it".to_owned()),
    ] {
        set_mode(dir.path(), mode);
        let refusal = refusal(dir.path());
        assert!(refusal.contains(&cure), "{refusal}");
        assert!(!dir.path().join(".kidafs").exists());
    }
    // A team may share a cache.
    set_mode(dir.path(), 0o770);
    let sharing = Sharing {
        trust_group: true,
        ..Sharing::default()
    };
    Backing::open(dir.path(), sharing).unwrap();
}

#[test]
fn root_serves_another_users_directory_only_if_others_are_let_in() {
    if !is_root() {
        return; // An ordinary user cannot give a directory away.
    }
    let dir = folder();
    chown(dir.path(), Some(65534), None).unwrap();
    let refusal = refusal(dir.path());
    assert!(refusal.contains("belongs to user 65534"), "{refusal}");
    let sharing = Sharing {
        allow_other: true,
        ..Sharing::default()
    };
    let backing = Backing::open(dir.path(), sharing).unwrap();
    assert!(backing.private().is_some());
}

#[test]
fn a_private_folder_of_another_user_is_refused() {
    if !is_root() {
        return; // An ordinary user cannot give a directory away.
    }
    let dir = folder();
    let private = dir.path().join(".kidafs");
    fs::create_dir(&private).unwrap();
    chown(&private, Some(65534), None).unwrap();
    assert!(refusal(dir.path()).contains("another user owns it"));
}

#[test]
fn a_file_is_not_a_backing_directory() {
    let dir = folder();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(refusal(&file).contains("not a directory"));
    assert!(refusal(&file.join("below")).contains("not a directory"));
}

#[test]
fn a_missing_directory_is_created_for_its_owner_alone() {
    let dir = folder();
    let target = dir.path().join("a/b/cache");
    create(&target).unwrap();
    assert_eq!(mode(&target), 0o700);
    assert_eq!(
        target.metadata().unwrap().uid(),
        rustix::process::geteuid().as_raw()
    );
    // Again: it is there, and left as it is.
    set_mode(&target, 0o750);
    create(&target).unwrap();
    assert_eq!(mode(&target), 0o750);
}

#[test]
fn on_a_read_only_filesystem_nothing_is_locked_and_only_read_only_is_served() {
    let test = "on_a_read_only_filesystem_nothing_is_locked_and_only_read_only_is_served";
    if is_in(test) {
        let read_only = Sharing {
            read_only: true,
            ..Sharing::default()
        };
        for name in ["never-served", "served-before"] {
            let dir = std::env::temp_dir().join(name);
            let refusal = refusal(&dir);
            assert!(refusal.contains("read-only filesystem"), "{refusal}");
            assert!(refusal.contains("serve it with --read-only"), "{refusal}");
            // Two at once, since neither can change anything.
            let first = Backing::open(&dir, read_only).unwrap();
            let second = Backing::open(&dir, read_only).unwrap();
            assert!(first.private().is_none() && second.private().is_none());
        }
    } else if is_root() {
        let script = "mount -t tmpfs -o mode=0700 none \"$TMPDIR\" && cd \"$TMPDIR\" \
            && mkdir -m 700 never-served served-before served-before/.kidafs \
            && : > served-before/.kidafs/lock && mount -o remount,ro none \"$TMPDIR\" && exec";
        run_test_in(test, script, test);
    }
}

#[test]
fn an_ordinary_user_has_the_same_promises() {
    crate::support::situation::run_as_ordinary_user();
}
