//! The rename is the commit, on a real mount: what is where before it, after it, and during it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::mount::{Mount, wait_for};

/// Every regular file in the backing directory, with its content; `.kidafs/` included.
fn on_disk(mount: &Mount) -> BTreeMap<PathBuf, Vec<u8>> {
    fn collect(dir: &Path, below: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = below.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                collect(&entry.path(), &name, found);
            } else {
                found.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(&mount.backing(), Path::new(""), &mut found);
    found.remove(Path::new(".kidafs/lock"));
    found
}

/// The temporary names of kida, of its oldest releases, of Jinja2, of importlib and of Mako.
const TEMPORARY: [&str; 5] = [
    "__kida_py314_page.html_0123456789abcdef.pyc.abcdefgh.tmp",
    "__kida_py314_page.html_0123456789abcdef.tmp",
    "__jinja2_0123456789abcdef0123456789abcdef01234567.cacheabcdefgh.tmp",
    "page.cpython-314.pyc.140123456789",
    "tmpabcdefgh",
];

#[test]
fn staged_is_not_on_disk() {
    // Both ways of having a backing directory; it is looked at after each step of a store.
    for mut mount in [Mount::new(&[]), Mount::backed(&[])] {
        let nothing = on_disk(&mount);
        assert!(nothing.is_empty(), "{nothing:?}");
        for name in TEMPORARY {
            let path = mount.path(name);
            let mut file = File::create(&path).unwrap();
            assert_eq!(on_disk(&mount), nothing, "{name}: created");
            file.write_all(&vec![b'x'; 200_000]).unwrap();
            assert_eq!(on_disk(&mount), nothing, "{name}: written");
            file.sync_all().unwrap();
            assert_eq!(on_disk(&mount), nothing, "{name}: flushed");
            file.set_len(100_000).unwrap();
            drop(file);
            assert_eq!(on_disk(&mount), nothing, "{name}: closed");
        }
        // Nothing of them is left: neither beneath the mount nor after it.
        mount.umount();
        assert_eq!(on_disk(&mount), nothing);
    }
}

#[test]
fn in_place_quiet() {
    let mount = Mount::backed(&[]);
    // One of each kind, in the order of their last change: when the second is there, the staged one would be too.
    fs::write(mount.path(TEMPORARY[0]), "staged").unwrap();
    fs::write(mount.path("in-place"), "content").unwrap();
    assert_eq!(on_disk(&mount).len(), 0);
    let found = wait_for("the file on disk", || {
        fs::read(mount.backing().join("in-place")).ok()
    });
    assert_eq!(found, b"content");
    assert_eq!(on_disk(&mount).len(), 1);
    // And again after a change.
    let file = OpenOptions::new()
        .write(true)
        .open(mount.path("in-place"))
        .unwrap();
    file.write_all_at(b"CON", 0).unwrap();
    wait_for("the change on disk", || {
        (fs::read(mount.backing().join("in-place")).unwrap() == b"CONtent").then_some(())
    });
}

#[test]
fn in_place_fsync() {
    let mut mount = Mount::backed(&[]);
    let beneath = mount.backing().join("in-place");
    let mut file = File::create(mount.path("in-place")).unwrap();
    file.write_all(b"first").unwrap();
    file.sync_all().unwrap();
    assert_eq!(fs::read(&beneath).unwrap(), b"first");
    file.write_all(b" second").unwrap();
    assert_eq!(fs::read(&beneath).unwrap(), b"first", "not yet");
    file.sync_data().unwrap();
    assert_eq!(fs::read(&beneath).unwrap(), b"first second");
    file.write_all(b" third").unwrap();
    mount.kill9();
    assert_eq!(fs::read(&beneath).unwrap(), b"first second");
}

#[test]
fn whole_or_nothing() {
    let mount = Mount::backed(&[]);
    let big = vec![b'b'; 300_000];
    let entry = mount.commit("entry", &big);
    assert_eq!(on_disk(&mount), [("entry".into(), big.clone())].into());
    // What cannot be renamed leaves both names as they were.
    let staged = mount.path(TEMPORARY[0]);
    fs::write(&staged, "staged").unwrap();
    fs::create_dir(mount.path("dir")).unwrap();
    assert!(fs::rename(&staged, mount.path("dir")).is_err());
    assert!(fs::rename(&staged, mount.path("nowhere/entry")).is_err());
    assert_eq!(fs::read(&staged).unwrap(), b"staged");
    assert_eq!(on_disk(&mount), [("entry".into(), big)].into());
    fs::rename(&staged, &entry).unwrap();
    assert_eq!(
        on_disk(&mount),
        [("entry".into(), b"staged".to_vec())].into()
    );
    assert!(!staged.exists());
    fs::remove_file(entry).unwrap();
    assert!(on_disk(&mount).is_empty());
}

#[test]
fn a_staged_file_renamed_to_another_temporary_name_is_committed_by_the_last_rename() {
    let mount = Mount::backed(&[]);
    fs::write(mount.path(TEMPORARY[0]), "content").unwrap();
    fs::rename(mount.path(TEMPORARY[0]), mount.path(TEMPORARY[4])).unwrap();
    assert_eq!(fs::read(mount.path(TEMPORARY[4])).unwrap(), b"content");
    fs::rename(mount.path(TEMPORARY[4]), mount.path("entry")).unwrap();
    assert_eq!(
        on_disk(&mount),
        [("entry".into(), b"content".to_vec())].into()
    );
}

#[test]
fn a_commit_goes_to_another_folder_as_well() {
    let mut mount = Mount::backed(&[]);
    fs::create_dir_all(mount.path("a/b")).unwrap();
    fs::write(mount.path(TEMPORARY[4]), "content").unwrap();
    fs::rename(mount.path(TEMPORARY[4]), mount.path("a/b/entry")).unwrap();
    let expected = [("a/b/entry".into(), b"content".to_vec())].into();
    assert_eq!(on_disk(&mount), expected);
    mount.kill9();
    assert_eq!(on_disk(&mount), expected);
}

#[test]
fn what_is_written_after_the_rename_is_in_place() {
    let mut mount = Mount::backed(&[]);
    let mut file = File::create(mount.path(TEMPORARY[0])).unwrap();
    file.write_all(b"committed").unwrap();
    fs::rename(mount.path(TEMPORARY[0]), mount.path("entry")).unwrap();
    assert_eq!(
        fs::read(mount.backing().join("entry")).unwrap(),
        b"committed"
    );
    file.write_all(b" and more").unwrap();
    assert_eq!(
        fs::read(mount.path("entry")).unwrap(),
        b"committed and more"
    );
    drop(file);
    mount.umount();
    assert_eq!(
        fs::read(mount.backing().join("entry")).unwrap(),
        b"committed and more"
    );
}

/// Content that tells whether it is whole: a length, and a byte repeated so often.
fn sealed(round: u32) -> Vec<u8> {
    let length = 1 + (round * 7_919) % 40_000;
    let mut content = length.to_le_bytes().to_vec();
    content.resize(4 + length as usize, round as u8);
    content
}

fn assert_sealed(content: &[u8]) {
    let (length, rest) = content.split_first_chunk::<4>().expect("a length");
    assert_eq!(rest.len(), u32::from_le_bytes(*length) as usize, "torn");
    assert!(rest.iter().all(|byte| *byte == rest[0]), "mixed");
}

#[test]
fn readers() {
    const ROUNDS: u32 = 149;
    // With and without room in memory, so that content comes from there and from disk.
    for options in [&["--memory=64MiB"][..], &["--memory=0"]] {
        let mount = Mount::backed(options);
        let path = mount.commit("entry", sealed(0));
        let done = AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut seen = 0_u32;
                        while !done.load(Ordering::Relaxed) {
                            // Missing only where it was removed.
                            if let Ok(mut file) = File::open(&path) {
                                let mut content = Vec::new();
                                file.read_to_end(&mut content).unwrap();
                                assert_sealed(&content);
                                seen += 1;
                            }
                            if let Ok(content) = fs::read(mount.backing().join("entry")) {
                                assert_sealed(&content);
                            }
                        }
                        seen
                    })
                })
                .collect();
            for round in 1..=ROUNDS {
                mount.commit("entry", sealed(round));
                if round % 10 == 0 {
                    fs::remove_file(&path).unwrap();
                }
            }
            done.store(true, Ordering::Relaxed);
            readers
                .into_iter()
                .map(|reader| reader.join().unwrap())
                .sum::<u32>()
        });
        assert!(seen > 0);
        assert_eq!(fs::read(&path).unwrap(), sealed(ROUNDS));
    }
}

#[test]
fn open_readers() {
    for options in [&["--memory=64MiB"][..], &["--memory=0"]] {
        let mut mount = Mount::new(options);
        let mut open = Vec::new();
        for round in 0..20 {
            let path = mount.commit("entry", sealed(round));
            open.push(File::open(path).unwrap());
        }
        fs::remove_file(mount.path("entry")).unwrap();
        for (round, file) in (0..).zip(&mut open) {
            let mut content = Vec::new();
            file.read_to_end(&mut content).unwrap();
            assert_eq!(content, sealed(round));
        }
        drop(open);
        mount.umount();
    }
}

#[test]
fn writers_of_one_name_at_once_leave_one_of_theirs() {
    let mount = Mount::backed(&[]);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let mount = &mount;
            scope.spawn(move || {
                for round in 0..50 {
                    let temporary = mount.path(format!("tmpwriter{writer:02}"));
                    fs::write(&temporary, sealed(writer * 50 + round)).unwrap();
                    fs::rename(&temporary, mount.path("entry")).unwrap();
                }
            });
        }
    });
    let content = fs::read(mount.path("entry")).unwrap();
    assert_sealed(&content);
    assert_eq!(on_disk(&mount), [("entry".into(), content)].into());
    assert_eq!(mount.stats().staging.files, 0);
    assert_eq!(mount.stats().commits, 200);
}

#[test]
fn an_ordinary_user_has_the_same_promises() {
    crate::support::situation::run_as_ordinary_user();
}
