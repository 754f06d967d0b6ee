//! What stat says, on a real mount. The kernel keeps attributes for ever, so after each operation what it
//! answers from its cache is compared with what the daemon says when it is asked.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::mount::{Mount, done};
use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, Timespec, Timestamps};

/// What stat says of `path`, the same from the kernel's cache and from the daemon; never following a link.
#[track_caller]
fn stat(path: &Path) -> Statx {
    let ask = |how| {
        let flags = AtFlags::SYMLINK_NOFOLLOW | how;
        rustix::fs::statx(CWD, path, flags, StatxFlags::BASIC_STATS).unwrap()
    };
    let cached = ask(AtFlags::empty());
    let told = ask(AtFlags::STATX_FORCE_SYNC);
    let facts = |stat: &Statx| {
        let time = |time: rustix::fs::StatxTimestamp| (time.tv_sec, time.tv_nsec);
        (
            (stat.stx_ino, stat.stx_mode, stat.stx_nlink),
            (stat.stx_uid, stat.stx_gid),
            (stat.stx_size, stat.stx_blocks),
            (time(stat.stx_mtime), time(stat.stx_ctime)),
            time(stat.stx_atime),
        )
    };
    assert_eq!(facts(&cached), facts(&told), "cached, told");
    cached
}

fn ctime(stat: &Statx) -> (i64, u32) {
    (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec)
}

fn mtime(stat: &Statx) -> (i64, u32) {
    (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec)
}

fn update(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).open(path).unwrap()
}

#[test]
fn stat_is_true_after_each_operation_on_a_file() {
    let mount = Mount::new(&[]);
    let committed = mount.commit("committed", vec![b'a'; 10_000]);
    let staged = mount.path("tmpabcdefgh");
    fs::write(&staged, vec![b'a'; 10_000]).unwrap();
    let in_place = mount.path("in-place");
    fs::write(&in_place, vec![b'a'; 10_000]).unwrap();
    for path in [committed, staged, in_place] {
        let mut before = stat(&path);
        assert_eq!(
            (before.stx_size, before.stx_nlink, before.stx_blocks),
            (10_000, 1, 24)
        );
        let file = update(&path);
        type Operation<'a> = (&'static str, u64, bool, Box<dyn Fn() + 'a>);
        let operations: [Operation<'_>; 9] = [
            (
                "overwrite",
                10_000,
                true,
                Box::new(|| file.write_all_at(b"b", 5).unwrap()),
            ),
            (
                "extend",
                20_001,
                true,
                Box::new(|| file.write_all_at(b"b", 20_000).unwrap()),
            ),
            (
                "cut off",
                100,
                true,
                Box::new(|| file.set_len(100).unwrap()),
            ),
            (
                "fill up",
                5_000,
                true,
                Box::new(|| file.set_len(5_000).unwrap()),
            ),
            (
                "chmod",
                5_000,
                false,
                Box::new(|| {
                    file.set_permissions(fs::Permissions::from_mode(0o640))
                        .unwrap();
                }),
            ),
            (
                "rename",
                5_000,
                false,
                Box::new(|| {
                    let other = path.with_file_name("tmpother000");
                    fs::rename(&path, &other).unwrap();
                    fs::rename(&other, &path).unwrap();
                }),
            ),
            ("flush", 5_000, false, Box::new(|| file.sync_all().unwrap())),
            (
                "read",
                5_000,
                false,
                Box::new(|| drop(fs::read(&path).unwrap())),
            ),
            (
                "O_TRUNC",
                0,
                true,
                Box::new(|| drop(File::create(&path).unwrap())),
            ),
        ];
        for (name, size, is_written, operation) in operations {
            operation();
            let after = stat(&path);
            assert_eq!(after.stx_size, size, "{name}");
            assert_eq!(after.stx_blocks, size.div_ceil(4096) * 8, "{name}");
            assert_eq!(after.stx_ino, before.stx_ino, "{name}");
            assert_eq!(mtime(&after) > mtime(&before), is_written, "{name}: mtime");
            let changes = is_written || ["chmod", "rename"].contains(&name);
            assert_eq!(ctime(&after) > ctime(&before), changes, "{name}: ctime");
            before = after;
        }
        assert_eq!(before.stx_mode & 0o7777, 0o640);
    }
}

#[test]
fn stat_is_true_of_directories() {
    let mount = Mount::new(&[]);
    let dir = mount.path("dir");
    fs::create_dir(&dir).unwrap();
    fs::create_dir(mount.path("other")).unwrap();
    let operations: [(&str, &dyn Fn()); 9] = [
        ("create", &|| drop(File::create(dir.join("file")).unwrap())),
        ("rename", &|| {
            fs::rename(dir.join("file"), dir.join("renamed")).unwrap()
        }),
        ("move away", &|| {
            fs::rename(dir.join("renamed"), mount.path("other/file")).unwrap()
        }),
        ("move in", &|| {
            fs::rename(mount.path("other/file"), dir.join("file")).unwrap()
        }),
        ("unlink", &|| fs::remove_file(dir.join("file")).unwrap()),
        ("mkdir", &|| fs::create_dir(dir.join("sub")).unwrap()),
        ("rmdir", &|| fs::remove_dir(dir.join("sub")).unwrap()),
        ("symlink", &|| symlink("x", dir.join("link")).unwrap()),
        ("commit", &|| drop(mount.commit("dir/entry", "content"))),
    ];
    for (name, operation) in operations {
        let (before, other) = (stat(&dir), stat(&mount.path("other")));
        operation();
        let after = stat(&dir);
        assert!(mtime(&after) > mtime(&before), "{name}: mtime");
        assert!(ctime(&after) > ctime(&before), "{name}: ctime");
        let moves = name.starts_with("move");
        assert_eq!(
            mtime(&stat(&mount.path("other"))) > mtime(&other),
            moves,
            "{name}"
        );
    }
    // What only changes content leaves its directory alone.
    let before = stat(&dir);
    update(&dir.join("entry")).write_all_at(b"x", 0).unwrap();
    update(&dir.join("entry")).sync_all().unwrap();
    assert_eq!(mtime(&stat(&dir)), mtime(&before));
}

#[test]
fn stat_is_true_of_what_has_lost_its_name() {
    let mount = Mount::new(&[]);
    let links = |file: &File| {
        let flags = [AtFlags::empty(), AtFlags::STATX_FORCE_SYNC];
        flags.map(|how| {
            let flags = AtFlags::EMPTY_PATH | how;
            rustix::fs::statx(file, "", flags, StatxFlags::BASIC_STATS)
                .unwrap()
                .stx_nlink
        })
    };
    let unlinked = File::open(mount.commit("unlinked", "content")).unwrap();
    let replaced = File::open(mount.commit("replaced", "content")).unwrap();
    let dir = mount.path("dir");
    fs::create_dir(&dir).unwrap();
    let removed = File::open(&dir).unwrap();
    assert_eq!(links(&unlinked), [1, 1]);
    fs::remove_file(mount.path("unlinked")).unwrap();
    mount.commit("replaced", "new");
    fs::remove_dir(&dir).unwrap();
    assert_eq!(links(&unlinked), [0, 0]);
    assert_eq!(links(&replaced), [0, 0]);
    assert_eq!(links(&removed), [0, 0]);
}

#[test]
fn a_commit_leaves_mode_and_times_as_they_were_staged() {
    let mount = Mount::new(&[]);
    let staged = mount.path("tmpabcdefgh");
    fs::write(&staged, "content").unwrap();
    fs::set_permissions(&staged, fs::Permissions::from_mode(0o604)).unwrap();
    let before = stat(&staged);
    fs::rename(&staged, mount.path("entry")).unwrap();
    let after = stat(&mount.path("entry"));
    assert_eq!(
        (after.stx_mode, mtime(&after)),
        (before.stx_mode, mtime(&before))
    );
    let beneath = fs::metadata(mount.backing().join("entry")).unwrap();
    assert_eq!(beneath.mode(), u32::from(after.stx_mode));
    assert_eq!(
        (beneath.mtime(), beneath.mtime_nsec() as u32),
        mtime(&after)
    );
}

/// Seconds and nanoseconds that are asked of a file, a directory and a link: before 1970, at its first
/// moment, beyond 32 bits, and now.
const TIMES: [(i64, u32); 7] = [
    (-1_000_000_000, 1),
    (-1, 999_999_999),
    (-1, 0),
    (0, 0),
    (1_700_000_000, 123_456_789),
    (2_147_483_648, 1),
    (4_500_000_000, 987_654_321),
];

fn set_times(path: &Path, atime: (i64, u32), mtime: (i64, u32)) {
    let time = |(secs, nanos): (i64, u32)| Timespec {
        tv_sec: secs,
        tv_nsec: nanos.into(),
    };
    let times = Timestamps {
        last_access: time(atime),
        last_modification: time(mtime),
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let mut mount = Mount::new(&[]);
    for (at, time) in TIMES.into_iter().enumerate() {
        let names = ["file", "dir", "link"].map(|kind| format!("{kind}{at}"));
        mount.commit(&names[0], "content");
        fs::create_dir(mount.path(&names[1])).unwrap();
        symlink("target", mount.path(&names[2])).unwrap();
        for name in names {
            set_times(&mount.path(&name), (1_600_000_000 + at as i64, 7), time);
            let found = stat(&mount.path(&name));
            assert_eq!(mtime(&found), time, "{name}");
            let atime = (found.stx_atime.tv_sec, found.stx_atime.tv_nsec);
            assert_eq!(atime, (1_600_000_000 + at as i64, 7), "{name}");
        }
    }
    let check = |root: &Path| {
        for (at, time) in TIMES.into_iter().enumerate() {
            for kind in ["file", "dir", "link"] {
                let name = format!("{kind}{at}");
                let found = fs::symlink_metadata(root.join(&name)).unwrap();
                assert_eq!((found.mtime(), found.mtime_nsec() as u32), time, "{name}");
            }
        }
    };
    check(mount.dir());
    check(&mount.backing());
    mount.umount();
    check(mount.dir());
    mount.mount(&[]);
    check(mount.dir());
}

#[test]
fn times_set_before_the_commit_are_the_entrys() {
    let mount = Mount::new(&[]);
    for (at, time) in TIMES.into_iter().enumerate() {
        let staged = mount.path("tmpabcdefgh");
        fs::write(&staged, "content").unwrap();
        set_times(&staged, time, time);
        let entry = mount.path(format!("entry{at}"));
        fs::rename(&staged, &entry).unwrap();
        assert_eq!(mtime(&stat(&entry)), time);
        let beneath = fs::metadata(mount.backing().join(format!("entry{at}"))).unwrap();
        assert_eq!((beneath.mtime(), beneath.mtime_nsec() as u32), time);
    }
}

#[test]
fn times_set_in_place_outlive_the_persisting() {
    let mut mount = Mount::new(&[]);
    let path = mount.path("file");
    let file = File::create(&path).unwrap();
    file.write_all_at(b"content", 0).unwrap();
    set_times(&path, (1, 2), (3, 4));
    file.sync_all().unwrap();
    assert_eq!(mtime(&stat(&path)), (3, 4));
    drop(file);
    mount.umount();
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.mtime(), found.mtime_nsec()), (3, 4));
}

#[test]
fn without_extended_attributes_the_kernel_does_not_ask_for_any() {
    let mount = Mount::new(&[]);
    mount.commit("entry", "content");
    let set = || {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(mount.path("entry"), "user.note", b"x", flags)
    };
    assert_eq!(set(), Err(rustix::io::Errno::OPNOTSUPP));
    let get = || rustix::fs::lgetxattr(mount.path("entry"), "user.note", &mut [0; 10][..]);
    assert_eq!(get(), Err(rustix::io::Errno::OPNOTSUPP));
    let list = || rustix::fs::llistxattr(mount.path("entry"), &mut [0; 10][..]);
    assert_eq!(list(), Err(rustix::io::Errno::OPNOTSUPP));
    let asked = || {
        let requests = mount.stats().requests;
        ["getxattr", "setxattr", "listxattr"].map(|kind| requests.get(kind).copied().unwrap_or(0))
    };
    let before = asked();
    for number in 0..10 {
        mount.commit(&format!("another{number}"), "content");
    }
    done(Command::new("ls").arg("-la").arg(mount.dir()));
    assert!(set().is_err() && get().is_err() && list().is_err());
    assert_eq!(asked(), before);
}

#[test]
fn extended_attributes_are_kept() {
    let mut mount = Mount::new(&["--xattrs"]);
    let get = |path: &Path, key: &str| {
        let mut value = [0; 100];
        rustix::fs::lgetxattr(path, key, &mut value).map(|length| value[..length].to_vec())
    };
    let set = |path: &Path, value: &str| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(path, "user.note", value.as_bytes(), flags).unwrap();
    };
    fs::create_dir(mount.path("dir")).unwrap();
    mount.commit("entry", "content");
    fs::write(mount.path("tmpabcdefgh"), "content").unwrap();
    for name in ["dir", "entry", "tmpabcdefgh"] {
        set(&mount.path(name), name);
        assert_eq!(
            get(&mount.path(name), "user.note").unwrap(),
            name.as_bytes()
        );
    }
    fs::rename(mount.path("tmpabcdefgh"), mount.path("committed")).unwrap();
    // Changed in place and persisted, it keeps them as well.
    update(&mount.path("entry"))
        .write_all_at(b"CON", 0)
        .unwrap();
    update(&mount.path("entry")).sync_all().unwrap();
    let check = |root: &Path| {
        assert_eq!(get(&root.join("dir"), "user.note").unwrap(), b"dir");
        assert_eq!(get(&root.join("entry"), "user.note").unwrap(), b"entry");
        assert_eq!(
            get(&root.join("committed"), "user.note").unwrap(),
            b"tmpabcdefgh"
        );
    };
    check(mount.dir());
    check(&mount.backing());
    mount.umount();
    mount.mount(&["--xattrs"]);
    check(mount.dir());
    // The digest can be read, but is not listed.
    let mut listed = [0; 200];
    let length = rustix::fs::llistxattr(mount.path("entry"), &mut listed).unwrap();
    assert_eq!(&listed[..length], b"user.note\0");
    rustix::fs::lremovexattr(mount.path("entry"), "user.note").unwrap();
    let gone = Err(rustix::io::Errno::NODATA);
    assert_eq!(get(&mount.path("entry"), "user.note"), gone);
    assert_eq!(get(&mount.backing().join("entry"), "user.note"), gone);
    let refused = rustix::fs::lsetxattr(
        mount.path("entry"),
        "user.kidafs.sha256",
        b"no",
        rustix::fs::XattrFlags::empty(),
    );
    refused.unwrap();
    assert_ne!(
        get(&mount.path("entry"), "user.kidafs.sha256").unwrap(),
        b"no"
    );
}

/// Reads and writes a file through shared mappings, in a process of its own.
const MAPPING: &str = "
import mmap, os, sys
path = sys.argv[1]
with open(path, 'r+b') as file:
    reading = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    assert reading[:4] == b'0123', reading[:4]
    writing = mmap.mmap(file.fileno(), 0)
    writing[4:8] = b'wxyz'
    assert reading[:8] == b'0123wxyz'
    assert os.pread(file.fileno(), 8, 0) == b'0123wxyz'
    writing.flush()
    os.pwrite(file.fileno(), b'abcd', 0)
    assert writing[:8] == b'abcdwxyz', writing[:8]
    file.truncate(9000)
    grown = mmap.mmap(file.fileno(), 9000)
    grown[8999] = 33
    grown.flush()
    grown[8998] = 33  # never flushed: the kernel does when it is unmapped or closed
";

#[test]
fn files_are_mapped_into_memory() {
    let mut mount = Mount::new(&[]);
    let committed = mount.commit("committed", "0123456789");
    let in_place = mount.path("in-place");
    fs::write(&in_place, "0123456789").unwrap();
    let mut expected = b"abcdwxyz89".to_vec();
    expected.resize(8_998, 0);
    expected.extend(b"!!");
    for path in [&committed, &in_place] {
        let before = stat(path);
        done(
            Command::new(crate::support::python::python())
                .args(["-I", "-c", MAPPING])
                .arg(path),
        );
        assert_eq!(fs::read(path).unwrap(), expected);
        let after = stat(path);
        assert_eq!(after.stx_size, 9_000);
        assert!(mtime(&after) > mtime(&before));
    }
    mount.umount();
    for path in [committed, in_place] {
        assert_eq!(fs::read(path).unwrap(), expected);
    }
}

#[test]
fn inode_numbers_are_never_used_again() {
    let mount = Mount::new(&[]);
    let mut seen = std::collections::HashSet::new();
    for round in 0..200 {
        let path = mount.commit("entry", format!("{round}"));
        assert!(seen.insert(fs::metadata(&path).unwrap().ino()));
        if round % 3 == 0 {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn an_ordinary_user_has_the_same_promises() {
    crate::support::situation::run_as_ordinary_user();
}
