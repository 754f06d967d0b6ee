//! The same promises on every filesystem that a backing directory may be on.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::support::entries::{content, drafts, files, name, stored_digest};
use crate::support::live::{Live, store};
use crate::support::loopfs::{Kind, LoopFs};
use kidafs::evict::Reason;
use kidafs::tier::Digest;

struct Place {
    backing: std::path::PathBuf,
    dir: std::path::PathBuf,
    _fs: LoopFs,
    _folder: tempfile::TempDir,
}

impl Place {
    fn on(kind: Kind) -> Self {
        let folder = crate::support::live::folder();
        let bytes = kind.least_size().max(64 << 20);
        let fs = LoopFs::make(folder.path(), kind, bytes);
        Self {
            backing: fs.directory("backing"),
            dir: folder.path().join("cache"),
            _fs: fs,
            _folder: folder,
        }
    }

    fn mount(&self, options: &[&str]) -> Live {
        let backing = ["--backing", self.backing.to_str().unwrap()];
        Live::start(&self.dir, &[&backing, options].concat())
    }
}

/// Whatever is done to a tree in a day, and what is left of it.
fn use_tree(dir: &Path) {
    for number in 0..50 {
        store(dir, &name("a.html", number), &content(number, 3_000)).unwrap();
    }
    for number in 0..25 {
        // Over an existing entry, and away.
        store(dir, &name("a.html", number), &content(number + 100, 6_000)).unwrap();
        fs::remove_file(dir.join(name("a.html", number + 25))).unwrap();
    }
    fs::create_dir_all(dir.join("sub/deep")).unwrap();
    store(&dir.join("sub/deep"), "entry.cache", b"deep").unwrap();
    fs::rename(dir.join("sub/deep"), dir.join("moved")).unwrap();
    symlink("moved/entry.cache", dir.join("link")).unwrap();
    let file = fs::File::create(dir.join("in-place")).unwrap();
    std::io::Write::write_all(&mut &file, b"written in place").unwrap();
    file.sync_all().unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000, 123_456_789);
    file.set_modified(time).unwrap();
}

fn check_tree(dir: &Path, context: &str) {
    let found = files(dir);
    for number in 0..25 {
        let bytes = &found[&name("a.html", number)];
        assert_eq!(
            Digest::of(bytes),
            Digest::of(&content(number + 100, 6_000)),
            "{context}"
        );
    }
    assert_eq!(found["moved/entry.cache"], b"deep", "{context}");
    assert_eq!(found["link"], b"deep", "{context}");
    assert_eq!(found["in-place"], b"written in place", "{context}");
    assert_eq!(found.len(), 28, "{context}: {:?}", found.keys());
    let metadata = fs::metadata(dir.join("in-place")).unwrap();
    assert_eq!(
        (metadata.mtime(), metadata.mtime_nsec()),
        (1_600_000_000, 123_456_789),
        "{context}"
    );
}

fn every_promise(kind: Kind) {
    let context = format!("{kind:?}");
    let place = Place::on(kind);
    for durability in ["crash", "power", "async"] {
        let context = format!("{context}, {durability}");
        let live = place.mount(&["--durability", durability]);
        use_tree(&place.dir);
        check_tree(&place.dir, &context);
        assert!(live.stats().digests, "{context}");
        live.unmount();
        check_tree(&place.backing, &context);
        assert_eq!(drafts(&place.backing), 0, "{context}");
        for name in ["in-place", &name("a.html", 0), "moved/entry.cache"] {
            let path = place.backing.join(name);
            let digest = Digest::of(&fs::read(&path).unwrap());
            assert_eq!(stored_digest(&path), Some(digest), "{context}: {name}");
        }
        // A daemon that is killed leaves the same.
        let mut live = place.mount(&["--durability", durability]);
        check_tree(&place.dir, &context);
        store(&place.dir, "last", b"last").unwrap();
        if durability != "async" {
            live.kill();
            live.detach();
            assert_eq!(
                fs::read(place.backing.join("last")).unwrap(),
                b"last",
                "{context}"
            );
        } else {
            live.unmount();
        }
        let live = place.mount(&[]);
        assert_eq!(
            fs::read(place.dir.join("last")).unwrap(),
            b"last",
            "{context}"
        );
        // Damage is found, and set aside on this filesystem.
        let entry = name("a.html", 1);
        drop(live);
        let path = place.backing.join(&entry);
        let mut bytes = fs::read(&path).unwrap();
        bytes[2_000] ^= 1;
        fs::write(&path, bytes).unwrap();
        let live = place.mount(&[]);
        let error = fs::read(place.dir.join(&entry)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{context}");
        assert_eq!(live.stats().evictions[&Reason::Corrupt], 1, "{context}");
        for left in fs::read_dir(&place.dir).unwrap() {
            let left = left.unwrap();
            if left.file_type().unwrap().is_dir() {
                fs::remove_dir_all(left.path()).unwrap();
            } else {
                fs::remove_file(left.path()).unwrap();
            }
        }
        live.unmount();
        assert!(files(&place.backing).is_empty(), "{context}");
    }
}

#[test]
fn ext4() {
    every_promise(Kind::Ext4);
}

#[test]
fn xfs() {
    every_promise(Kind::Xfs);
}

#[test]
fn btrfs() {
    every_promise(Kind::Btrfs);
}

#[test]
fn tmpfs() {
    every_promise(Kind::Tmpfs);
}

#[test]
fn overlayfs() {
    every_promise(Kind::Overlay);
}

#[test]
fn without_extended_attributes_it_works_and_says_that_digests_are_off() {
    let place = Place::on(Kind::Ramfs);
    let live = place.mount(&[]);
    assert!(!live.stats().digests);
    assert_eq!(live.log().matches("digests are off").count(), 1);
    use_tree(&place.dir);
    check_tree(&place.dir, "ramfs");
    live.unmount();
    check_tree(&place.backing, "ramfs");
    // What can be seen to be torn is missing even so.
    let torn = name("a.html", 0);
    let file = fs::File::options()
        .write(true)
        .open(place.backing.join(&torn))
        .unwrap();
    file.set_len(100).unwrap();
    let live = place.mount(&[]);
    let error = fs::read(place.dir.join(&torn)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        fs::read(place.dir.join(name("a.html", 1))).unwrap(),
        content(101, 6_000)
    );
    live.unmount();
}
