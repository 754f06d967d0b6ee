//! Mounting and unmounting, as the user who runs the tests: root by mount(2), anybody else through
//! fusermount3. Without /dev/fuse these tests fail.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use crate::support::daemon::{FILE_NAME, Served, folder, is_mount_root, serve};
use kidafs::daemon::mount::{MountError, MountOptions, clear, mount};
use kidafs::daemon::mountinfo;
use kidafs::daemon::mountpoint::{State, inspect, inspect_within};
use kidafs::daemon::unmount::{UnmountError, Unmounted, unmount};

const SOON: Duration = Duration::from_secs(10);

/// fusermount3 does not mount over a FUSE mount: it looks at it as root, whom FUSE turns away.
fn can_stack() -> bool {
    rustix::process::geteuid().is_root()
}

/// Unmounts. A process that a test beside this one is just starting holds this process's
/// descriptors until it runs its program, and with one of the mount makes it busy.
fn end(served: Served) {
    let deadline = Instant::now() + SOON;
    while let Err(error) = served.mounted.unmount() {
        assert!(matches!(error, UnmountError::Busy { .. }), "{error}");
        assert!(Instant::now() < deadline, "{error}");
        std::thread::yield_now();
    }
    served.session.join().unwrap().unwrap();
}

#[test]
fn a_mount_answers_and_is_gone_after_its_unmount() {
    let dir = folder();
    let served = serve(dir.path(), &MountOptions::default());
    assert!(is_mount_root(dir.path()));
    assert!(dir.path().join(FILE_NAME).exists());
    end(served);
    assert!(!is_mount_root(dir.path()));
    assert!(!dir.path().join(FILE_NAME).exists());
}

#[test]
fn every_mount_is_nosuid_nodev_noexec() {
    let dir = folder();
    let served = serve(dir.path(), &MountOptions::default());
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table
        .lines()
        .find(|line| line.contains(dir.path().to_str().unwrap()))
        .unwrap();
    for option in ["rw", "nosuid", "nodev", "noexec"] {
        assert!(line.contains(option), "{option} is missing: {line}");
    }
    assert!(!line.contains("allow_other"), "{line}");
    end(served);
}

#[test]
fn the_kernel_checks_modes_wherever_anybody_but_root_gets_in() {
    let dir = folder();
    let root = rustix::process::geteuid().is_root();
    let options = MountOptions {
        allow_other: root,
        ..MountOptions::default()
    };
    let served = serve(dir.path(), &options);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table
        .lines()
        .find(|line| line.contains(dir.path().to_str().unwrap()))
        .unwrap();
    assert_eq!(line.contains("allow_other"), root, "{line}");
    assert!(line.contains("default_permissions"), "{line}");
    end(served);
}

#[test]
fn a_read_only_mount_refuses_writes_by_itself() {
    let dir = folder();
    let served = serve(
        dir.path(),
        &MountOptions {
            read_only: true,
            ..MountOptions::default()
        },
    );
    let error = fs::write(dir.path().join("new"), "").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    end(served);
}

#[test]
fn the_source_is_shown_as_it_was_given() {
    let dir = folder();
    let source = OsString::from("/with space,comma\\backslash\ttab#hash");
    let served = serve(
        dir.path(),
        &MountOptions {
            source: source.clone(),
            ..MountOptions::default()
        },
    );
    let mounts = mountinfo::read().unwrap();
    assert_eq!(mountinfo::top(&mounts, dir.path()).unwrap().source, source);
    end(served);
}

#[test]
fn an_odd_directory_name_is_mounted_and_unmounted_like_any_other() {
    let dir = folder();
    let odd = dir.path().join("a b\\c,d\n#é");
    fs::create_dir(&odd).unwrap();
    let served = serve(&odd, &MountOptions::default());
    assert!(matches!(inspect(&odd).unwrap().state, State::Live { .. }));
    end(served);
}

#[test]
fn a_live_mount_is_refused_by_its_daemons_process_id() {
    let dir = folder();
    let served = serve(dir.path(), &MountOptions::default());
    let refusal = clear(dir.path()).unwrap_err().to_string();
    let me = format!("(process {})", std::process::id());
    assert!(
        refusal.contains("already served") && refusal.contains(&me),
        "{refusal}"
    );
    // By way of a symbolic link it is the same mount.
    let elsewhere = folder();
    let link = elsewhere.path().join("link");
    symlink(dir.path(), &link).unwrap();
    let found = inspect(&link).unwrap();
    assert_eq!(found.path, dir.path());
    assert!(matches!(found.state, State::Live { .. }));
    end(served);
}

#[test]
fn a_directory_inside_a_mount_is_not_the_mount() {
    let dir = folder();
    let served = serve(dir.path(), &MountOptions::default());
    let inside = inspect(&dir.path().join(".kidafs")).unwrap();
    assert_eq!(inside.state, State::Directory);
    end(served);
}

#[test]
fn a_mount_that_nobody_serves_is_silent_and_looking_at_it_does_not_hang() {
    let dir = folder();
    let (device, mounted) = mount(dir.path(), &MountOptions::default()).unwrap();
    let found = inspect_within(dir.path(), Duration::from_millis(50)).unwrap();
    assert!(matches!(found.state, State::Silent(_)), "{found:?}");
    // With its descriptor the connection ends, and the thread that asked is let go.
    drop(device);
    mounted.forget();
    let found = inspect(dir.path()).unwrap();
    assert!(matches!(found.state, State::Dead(_)), "{found:?}");
    clear(dir.path()).unwrap();
    assert!(!is_mount_root(dir.path()));
}

#[test]
fn stacked_dead_mounts_are_all_detached() {
    if !can_stack() {
        return;
    }
    let dir = folder();
    for _ in 0..3 {
        let (device, mounted) = mount(dir.path(), &MountOptions::default()).unwrap();
        drop(device);
        mounted.forget();
    }
    let count = || {
        let mounts = mountinfo::read().unwrap();
        mounts
            .iter()
            .filter(|mount| mount.mount_point == dir.path())
            .count()
    };
    assert_eq!(count(), 3);
    clear(dir.path()).unwrap();
    assert_eq!(count(), 0);
}

#[test]
fn a_dead_mount_is_unmounted_by_umount_too() {
    let dir = folder();
    let (device, mounted) = mount(dir.path(), &MountOptions::default()).unwrap();
    drop(device);
    mounted.forget();
    assert_eq!(unmount(dir.path(), false, SOON).unwrap(), Unmounted::Dead);
    assert!(!is_mount_root(dir.path()));
}

#[test]
fn a_mount_in_use_is_busy_and_can_be_detached() {
    let dir = folder();
    let served = serve(dir.path(), &MountOptions::default());
    let open = fs::File::open(dir.path().join(FILE_NAME)).unwrap();
    let refusal = unmount(dir.path(), false, SOON).unwrap_err();
    assert!(matches!(refusal, UnmountError::Busy { .. }), "{refusal:?}");
    assert!(refusal.to_string().contains("--lazy"), "{refusal}");
    assert_eq!(
        unmount(dir.path(), true, SOON).unwrap(),
        Unmounted::Detached
    );
    assert!(!is_mount_root(dir.path()));
    // It is served until the file is closed.
    assert!(!served.session.is_finished());
    drop(open);
    served.session.join().unwrap().unwrap();
}

#[test]
fn an_external_unmount_ends_the_session_and_nothing_else_is_unmounted() {
    let dir = folder();
    // Something of somebody else's beneath, which a second unmount would hit.
    let beneath = can_stack().then(|| serve(dir.path(), &MountOptions::default()));
    let served = serve(dir.path(), &MountOptions::default());
    assert_eq!(unmount_quietly(dir.path()), Ok(()));
    served.session.join().unwrap().unwrap();
    assert!(matches!(
        served.mounted.unmount(),
        Err(UnmountError::NotMounted { .. })
    ));
    drop(served.mounted);
    if let Some(beneath) = beneath {
        assert!(beneath.mounted.is_mounted());
        end(beneath);
    }
}

#[test]
fn a_mount_that_was_given_the_numbers_of_one_that_is_gone_is_left_alone() {
    let (gone, next) = (folder(), folder());
    let served = serve(gone.path(), &MountOptions::default());
    assert_eq!(unmount_quietly(gone.path()), Ok(()));
    served.session.join().unwrap().unwrap();
    // The kernel gives the lowest numbers that are free, so as a rule these are the same.
    let other = serve(next.path(), &MountOptions::default());
    assert!(!served.mounted.is_mounted());
    assert!(matches!(
        served.mounted.detach(),
        Err(UnmountError::NotMounted { .. })
    ));
    drop(served.mounted);
    assert!(other.mounted.is_mounted());
    end(other);
}

#[test]
fn a_mount_that_another_covers_is_not_unmounted_through_it() {
    if !can_stack() {
        return;
    }
    let dir = folder();
    let covered = serve(dir.path(), &MountOptions::default());
    let cover = serve(dir.path(), &MountOptions::default());
    assert!(matches!(
        covered.mounted.unmount(),
        Err(UnmountError::Busy { .. })
    ));
    assert!(matches!(
        covered.mounted.detach(),
        Err(UnmountError::Busy { .. })
    ));
    end(cover);
    end(covered);
}

#[test]
fn a_mount_whose_connection_was_aborted_is_detached_when_it_is_let_go() {
    if !can_stack() {
        return; // Nor can an ordinary user abort it so.
    }
    let dir = folder();
    let served = serve(dir.path(), &MountOptions::default());
    let open = fs::File::open(dir.path().join(FILE_NAME)).unwrap();
    let force = rustix::mount::UnmountFlags::FORCE;
    assert!(rustix::mount::unmount(dir.path(), force).is_err());
    served.session.join().unwrap().unwrap();
    assert!(is_mount_root(dir.path()));
    drop(served.mounted);
    assert!(!is_mount_root(dir.path()));
    drop(open);
}

#[test]
fn a_start_that_fails_half_way_leaves_no_mount() {
    let dir = folder();
    let (device, mounted) = mount(dir.path(), &MountOptions::default()).unwrap();
    drop(mounted);
    drop(device);
    assert!(!is_mount_root(dir.path()));
}

#[test]
fn what_is_no_mount_is_not_unmounted() {
    let dir = folder();
    for path in [dir.path().to_owned(), dir.path().join("missing")] {
        let refusal = unmount(&path, true, SOON).unwrap_err();
        assert!(
            matches!(refusal, UnmountError::NotMounted { .. }),
            "{refusal:?}"
        );
    }
}

#[test]
fn a_file_is_refused() {
    let dir = folder();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let refusal = clear(&file).unwrap_err();
    assert!(matches!(refusal, MountError::Inspect(_)), "{refusal:?}");
    assert!(
        refusal.to_string().contains("is not a directory"),
        "{refusal}"
    );
}

#[test]
fn a_missing_directory_is_told() {
    let dir = folder();
    assert_eq!(clear(&dir.path().join("missing")).unwrap(), None);
}

#[test]
fn a_symbolic_link_that_leads_nowhere_is_missing() {
    let dir = folder();
    let link = dir.path().join("link");
    symlink("nowhere", &link).unwrap();
    assert_eq!(clear(&link).unwrap(), None);
}

fn unmount_quietly(path: &std::path::Path) -> Result<(), String> {
    let program = if rustix::process::geteuid().is_root() {
        "umount"
    } else {
        "fusermount3"
    };
    let mut command = std::process::Command::new(program);
    if program == "fusermount3" {
        command.arg("-u");
    }
    match command.arg(path).status() {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn an_ordinary_user_has_the_same_promises() {
    crate::support::situation::run_as_ordinary_user();
}
