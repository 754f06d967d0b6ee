//! Names and listings, on a real mount.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use crate::support::mount::{Mount, done};
use rustix::io::Errno;

fn list(dir: &Path) -> BTreeSet<OsString> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(names.insert(name.clone()), "listed twice: {name:?}");
    }
    names
}

fn numbered(count: usize) -> BTreeSet<OsString> {
    (0..count)
        .map(|at| format!("entry-{at:06}").into())
        .collect()
}

/// Names that differ in what goes wrong with them.
fn odd_names() -> Vec<&'static OsStr> {
    let long: &'static [u8] = &[b'n'; 255];
    let names: [&'static [u8]; 12] = [
        b"two\nlines",
        b"tab\tand space ",
        b" leading space",
        b"-rf",
        b"*?[a]",
        b"back\\slash",
        b"\xff\xfe is not UTF-8",
        "\u{fc}berfahrt \u{1f5fc}".as_bytes(),
        b"u\xcc\x88 decomposed",
        b"...",
        b".kidafs.not",
        long,
    ];
    names.into_iter().map(OsStr::from_bytes).collect()
}

#[test]
fn names_are_bytes() {
    let mut mount = Mount::new(&[]);
    let expected: BTreeSet<OsString> = odd_names().into_iter().map(OsString::from).collect();
    for name in odd_names() {
        fs::write(mount.path("tmpnew00000"), name.as_bytes()).unwrap();
        fs::rename(mount.path("tmpnew00000"), mount.path(name)).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(list(mount.dir()), expected);
        for name in &expected {
            assert_eq!(fs::read(mount.path(name)).unwrap(), name.as_bytes());
            assert_eq!(
                fs::read(mount.backing().join(name)).unwrap(),
                name.as_bytes()
            );
        }
        mount.remount();
    }
    for name in odd_names() {
        fs::remove_file(mount.path(name)).unwrap();
        fs::create_dir(mount.path(name)).unwrap();
    }
    assert_eq!(list(mount.dir()), expected);
}

#[test]
fn a_name_of_256_bytes_is_too_long() {
    let mount = Mount::new(&[]);
    let long = "n".repeat(256);
    let path = mount.path(&long);
    mount.commit("entry", "");
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap();
    let results = [
        File::create(&path).map(drop).unwrap_err(),
        fs::metadata(&path).map(drop).unwrap_err(),
        fs::create_dir(&path).unwrap_err(),
        fs::remove_file(&path).unwrap_err(),
        fs::rename(mount.path("entry"), &path).unwrap_err(),
        std::os::unix::fs::symlink("x", &path).unwrap_err(),
    ];
    for result in results {
        assert_eq!(errno(result), Errno::NAMETOOLONG);
    }
    assert_eq!(list(mount.dir()).len(), 1);
}

#[test]
fn case_matters() {
    let mount = Mount::new(&[]);
    mount.commit("Entry", "upper");
    mount.commit("entry", "lower");
    assert_eq!(fs::read(mount.path("Entry")).unwrap(), b"upper");
    assert!(!mount.path("ENTRY").exists());
}

#[test]
fn a_listing_of_10_000_names_is_complete() {
    const COUNT: usize = 10_000;
    let expected = numbered(COUNT);
    let mut mount = Mount::prepared(&[], |dir| {
        for name in &expected {
            File::create(dir.join(name)).unwrap();
        }
    });
    assert_eq!(list(mount.dir()), expected);
    // As `ls -l` does, which asks for attributes as it goes.
    let listed = done(Command::new("ls").arg("-lU").arg(mount.dir()));
    assert_eq!(listed.lines().count(), COUNT + 1);
    let found = done(Command::new("find").arg(mount.dir()).args(["-type", "f"]));
    assert_eq!(found.lines().count(), COUNT);
    mount.umount();
}

#[test]
fn a_listing_shows_what_stays_once_while_others_come_and_go() {
    let mount = Mount::new(&[]);
    let stay = numbered(2_000);
    for name in &stay {
        File::create(mount.path(name)).unwrap();
    }
    std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let others = scope.spawn(|| {
            let stopped = stopped;
            let mut round = 0;
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                let name = format!("other-{}", round % 300);
                mount.commit(&name, "");
                if round % 2 == 0 {
                    fs::remove_file(mount.path(name)).unwrap();
                }
                round += 1;
            }
        });
        for _ in 0..10 {
            let names = fs::read_dir(mount.dir()).unwrap();
            let names = names.map(|entry| entry.unwrap().file_name());
            // What comes and goes may be in it or not, or even twice.
            let listed: Vec<_> = names.filter(|name| stay.contains(name)).collect();
            assert_eq!(listed.len(), stay.len());
            assert!(stay.iter().eq(listed.iter().collect::<BTreeSet<_>>()));
        }
        drop(stop);
        others.join().unwrap();
    });
}

#[test]
fn rm_removes_5_000_files_while_they_are_listed() {
    let mut mount = Mount::new(&[]);
    fs::create_dir(mount.path("dir")).unwrap();
    for name in numbered(5_000) {
        fs::write(mount.path("dir").join(name), "x").unwrap();
    }
    std::thread::scope(|scope| {
        let listing = scope.spawn(|| {
            while fs::read_dir(mount.path("dir")).is_ok_and(|names| names.count() > 0) {}
        });
        done(Command::new("rm").arg("-rf").arg(mount.path("dir")));
        listing.join().unwrap();
    });
    assert_eq!(list(mount.dir()), BTreeSet::new());
    mount.umount();
    assert_eq!(list(mount.dir()), BTreeSet::new());
}

#[test]
fn a_name_that_was_missed_is_seen_once_it_is_there() {
    let mount = Mount::new(&[]);
    // The kernel remembers a miss; each way to make a name must undo that.
    type Make<'a> = &'a dyn Fn(&Path);
    let ways: [(&str, Make<'_>); 6] = [
        ("create", &|path| drop(File::create(path).unwrap())),
        ("commit", &|path| {
            drop(mount.commit(path.file_name().unwrap().to_str().unwrap(), ""))
        }),
        ("mkdir", &|path| fs::create_dir(path).unwrap()),
        ("symlink", &|path| {
            std::os::unix::fs::symlink("/", path).unwrap()
        }),
        ("mknod", &|path| {
            let kind = rustix::fs::FileType::RegularFile;
            let mode = rustix::fs::Mode::RUSR;
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
        }),
        ("exchange", &|path| {
            let other = mount.commit("other", "");
            fs::rename(other, path).unwrap();
        }),
    ];
    for (name, make) in ways {
        let path = mount.path(name);
        for _ in 0..3 {
            assert!(!path.exists(), "{name}");
        }
        make(&path);
        assert!(path.exists(), "{name}");
        if path.is_dir() && name == "mkdir" {
            fs::remove_dir(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        assert!(!path.exists(), "{name}");
    }
}

#[test]
fn more_directories_than_open_files_are_usual() {
    // 1,024 descriptors are what a process usually begins with.
    const COUNT: usize = 1_500;
    let mut mount = Mount::new(&[]);
    for at in 0..COUNT {
        fs::create_dir(mount.path(format!("dir{at}"))).unwrap();
    }
    mount.commit("dir1499/entry", "content");
    mount.remount();
    assert_eq!(list(mount.dir()).len(), COUNT);
    assert_eq!(fs::read(mount.path("dir1499/entry")).unwrap(), b"content");
}

#[test]
fn an_ordinary_user_has_the_same_promises() {
    crate::support::situation::run_as_ordinary_user();
}
