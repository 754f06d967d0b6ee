//! Everything is bounded and is shown.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::process::Command;
use std::sync::Arc;

use kidafs::clock::SystemClock;
use kidafs::config::Config;
use kidafs::vfs::{About, Caller, Error, Notices, ROOT, Vfs};
use rustix::io::Errno;

use crate::support::entries::{content, name};
use crate::support::live::{Live, folder, kidafs, store};
use crate::support::mount::done;

const MIB: u64 = 1 << 20;

const ME: Caller = Caller { uid: 0, gid: 0 };

fn core(config: Config) -> (tempfile::TempDir, Vfs) {
    let dir = tempfile::tempdir().unwrap();
    let root = File::open(dir.path()).unwrap().into();
    let clock = Arc::new(SystemClock);
    let vfs = Vfs::open(root, config, clock, Notices::none(), About::default(), None);
    (dir, vfs.unwrap())
}

/// Content that was removed or replaced while it is open stays readable, and is not all in memory.
#[test]
fn content_that_is_open_without_a_name_is_kept_in_little_memory() {
    let folder = folder();
    let dir = folder.path().join("cache");
    let live = Live::start(&dir, &["--memory", "64MiB"]);
    let (count, size) = (100, 15 << 20);
    let mut open = Vec::new();
    for number in 0..count {
        let entry = name("a.html", number);
        store(&dir, &entry, &content(number, size)).unwrap();
        open.push(File::open(dir.join(&entry)).unwrap());
        fs::remove_file(dir.join(&entry)).unwrap();
    }
    let resident = live.resident();
    assert!(resident < 200 * MIB, "{} MiB", resident / MIB);
    let stats = live.stats();
    assert!(stats.orphans.bytes <= stats.orphans.budget_bytes);
    assert!(stats.orphans.files >= 90, "{:?}", stats.orphans);
    for number in [0, 50, 99] {
        let mut bytes = Vec::new();
        open[number].read_to_end(&mut bytes).unwrap();
        assert!(bytes == content(number as u64, size), "{number}");
    }
    drop(open);
    crate::support::live::until("given back", std::time::Duration::from_secs(20), || {
        live.stats().orphans.files == 0
    });
    live.unmount();
}

/// With few descriptors it is kept in memory, and others go on.
#[test]
fn where_descriptors_are_few_small_content_stays_readable_and_commits_go_on() {
    let folder = folder();
    let dir = folder.path().join("cache");
    let binary = kidafs();
    let mut mount = Command::new("prlimit");
    mount
        .args(["--nofile=256:256", "--"])
        .arg(binary.get_program());
    mount.args(["mount", "--memory", "0", "--log-file"]);
    mount.arg(folder.path().join("log")).arg(&dir);
    done(mount.env("KIDAFS_CONFIG", "/dev/null"));
    let mut open = Vec::new();
    for number in 0..600 {
        let entry = name("a.html", number);
        store(&dir, &entry, &content(number, 2_000)).unwrap();
        open.push(File::open(dir.join(&entry)).unwrap());
        fs::remove_file(dir.join(&entry)).unwrap();
    }
    fs::create_dir(dir.join("folder")).unwrap();
    for (number, file) in open.iter_mut().enumerate() {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert!(bytes == content(number as u64, 2_000), "{number}");
    }
    drop(open);
    done(kidafs().arg("umount").arg(&dir));
}

#[test]
fn staged_files_are_limited_in_number() {
    let (_dir, vfs) = core(Config {
        staging: 1 << 20,
        ..Config::default()
    });
    let mut refused = None;
    for number in 0..5_000 {
        let temporary = format!("{}.abcdefgh.tmp", name("a.html", number));
        if let Err(error) = vfs.create(ROOT, OsStr::new(&temporary), 0o600, ME, true) {
            refused = Some((number, error));
            break;
        }
    }
    assert_eq!(refused, Some((1_024, Error::TooManyStaged)));
    assert_eq!(Error::TooManyStaged.errno(), Errno::NOSPC);
    let staging = vfs.stats().staging;
    assert_eq!((staging.files, staging.budget_files), (1_024, Some(1_024)));
    // One that goes makes room for another.
    let gone = format!("{}.abcdefgh.tmp", name("a.html", 0));
    let stat = vfs.lookup(ROOT, OsStr::new(&gone), kidafs::vfs::Patience::Any);
    vfs.unlink(ROOT, OsStr::new(&gone)).unwrap();
    vfs.forget(stat.unwrap().ino, 2);
    vfs.create(ROOT, OsStr::new(&gone), 0o600, ME, true)
        .unwrap();
}

#[test]
fn directories_and_links_are_limited_in_number() {
    let (_dir, vfs) = core(Config {
        max_entries: 10,
        ..Config::default()
    });
    let link = |number: u64| {
        let name = number.to_string();
        let made = vfs.symlink(ROOT, OsStr::new(&name), OsStr::new("x"), ME);
        made.map(|stat| vfs.forget(stat.ino, 1))
    };
    for number in 0..10_000 {
        link(number).unwrap();
    }
    assert_eq!(link(10_000), Err(Error::TooManyInodes));
    let refused = vfs.mkdir(ROOT, OsStr::new("d"), 0o700, ME);
    assert_eq!(refused.map_err(Error::errno), Err(Errno::NOSPC));
    let shown = vfs.stats().folders_and_links;
    assert_eq!((shown.files, shown.budget_files), (10_000, Some(10_000)));
    vfs.unlink(ROOT, OsStr::new("5")).unwrap();
    vfs.mkdir(ROOT, OsStr::new("d"), 0o700, ME).unwrap();
}
