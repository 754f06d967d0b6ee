//! What programs do with files, on a real mount: each operation means there what it means elsewhere.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::support::mount::Mount;
use crate::support::situation::is_root;
use rustix::fs::{CWD, FileType, Mode, RenameFlags};
use rustix::io::Errno;

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Errno {
    Errno::from_io_error(&result.unwrap_err()).unwrap()
}

fn rename_with(from: &Path, to: &Path, flags: RenameFlags) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(CWD, from, CWD, to, flags)
}

fn make_node(path: &Path, kind: FileType) -> rustix::io::Result<()> {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), 0x103)
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(path).unwrap()
}

fn update(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

#[test]
fn hard_links_device_nodes_fifos_and_sockets_are_refused() {
    let mount = Mount::new(&[]);
    let entry = mount.commit("entry", "content");
    let other = mount.path("other");
    assert_eq!(errno(fs::hard_link(&entry, &other)), Errno::PERM);
    assert_eq!(make_node(&other, FileType::Fifo), Err(Errno::PERM));
    assert_eq!(errno(UnixListener::bind(&other)), Errno::PERM);
    for device in [FileType::CharacterDevice, FileType::BlockDevice] {
        assert_eq!(make_node(&other, device), Err(Errno::PERM));
    }
    make_node(&other, FileType::RegularFile).unwrap();
    assert_eq!(fs::metadata(&entry).unwrap().nlink(), 1);
    assert_eq!(read(other), b"");
}

#[test]
fn appending_goes_to_the_end_whoever_wrote_last() {
    let mount = Mount::new(&[]);
    let path = mount.path("file");
    let append = || OpenOptions::new().append(true).create(true).open(&path);
    let (mut one, mut two) = (append().unwrap(), append().unwrap());
    one.write_all(b"one ").unwrap();
    two.write_all(b"two ").unwrap();
    one.seek(SeekFrom::Start(0)).unwrap();
    one.write_all(b"three").unwrap();
    assert_eq!(read(&path), b"one two three");
    update(&path).set_len(4).unwrap();
    two.write_all(b"four").unwrap();
    assert_eq!(read(&path), b"one four");
}

#[test]
fn truncation_cuts_off_and_fills_with_zeros() {
    let mount = Mount::new(&[]);
    let committed = mount.commit("committed", "0123456789");
    fs::write(mount.path("tmpabcdefgh"), "0123456789").unwrap();
    for path in [committed, mount.path("tmpabcdefgh")] {
        let file = update(&path);
        file.set_len(4).unwrap();
        assert_eq!(read(&path), b"0123");
        file.set_len(6).unwrap();
        assert_eq!(read(&path), b"0123\0\0");
        file.set_len(10_000).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 10_000);
        file.set_len(5).unwrap();
        file.write_all_at(b"8", 8).unwrap();
        assert_eq!(read(&path), b"0123\0\0\0\08");
        // O_TRUNC, with what was read before still open.
        File::create(&path).unwrap();
        assert_eq!(file.read_at(&mut [0; 4], 0).unwrap(), 0);
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    }
}

#[test]
fn writing_in_the_middle_leaves_the_rest() {
    let mut mount = Mount::new(&[]);
    let content: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    let path = mount.commit("entry", &content);
    let file = update(&path);
    let mut expected = content;
    for at in [0, 4_095, 4_096, 131_071, 299_990] {
        file.write_all_at(b"changed", at as u64).unwrap();
        expected[at..at + 7].copy_from_slice(b"changed");
        assert_eq!(read(&path), expected);
    }
    drop(file);
    mount.umount();
    assert_eq!(read(path), expected);
}

#[test]
fn exclusive_creation_has_one_winner() {
    let mount = Mount::new(&[]);
    for round in 0..20 {
        let path = mount.path(format!("file{round}"));
        let create = || OpenOptions::new().write(true).create_new(true).open(&path);
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(create)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let (winners, losers): (Vec<_>, Vec<_>) =
            results.into_iter().partition(|file| file.is_ok());
        assert_eq!(winners.len(), 1);
        for loser in losers {
            assert_eq!(errno(loser), Errno::EXIST);
        }
    }
}

#[test]
fn what_was_unlinked_or_replaced_stays_as_it_was_for_who_has_it_open() {
    // With and without room in memory.
    for options in [&["--memory=64MiB"][..], &["--memory=0"]] {
        let mount = Mount::new(options);
        let content = vec![b'a'; 200_000];
        for name in ["unlinked", "replaced", "renamed-over", "swapped"] {
            mount.commit(name, &content);
        }
        let open = |name: &str| update(&mount.path(name));
        let files = ["unlinked", "replaced", "renamed-over", "swapped"].map(open);
        fs::remove_file(mount.path("unlinked")).unwrap();
        mount.commit("replaced", "new");
        mount.commit("other", "other");
        fs::rename(mount.path("other"), mount.path("renamed-over")).unwrap();
        mount.commit("pair", "pair");
        rename_with(
            &mount.path("pair"),
            &mount.path("swapped"),
            RenameFlags::EXCHANGE,
        )
        .unwrap();
        for mut file in files {
            let mut found = Vec::new();
            file.read_to_end(&mut found).unwrap();
            assert_eq!(found, content);
        }
        assert_eq!(read(mount.path("replaced")), b"new");
        assert_eq!(read(mount.path("renamed-over")), b"other");
        assert_eq!(read(mount.path("swapped")), b"pair");
        assert_eq!(read(mount.path("pair")), content);
    }
}

#[test]
fn what_was_unlinked_can_still_be_written_and_leaves_nothing() {
    let mut mount = Mount::new(&[]);
    let committed = mount.commit("committed", "0123456789");
    let staged = mount.path("tmpabcdefgh");
    fs::write(&staged, "0123456789").unwrap();
    for path in [committed, staged] {
        let mut file = update(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        file.write_all_at(b"abc", 20).unwrap();
        file.set_len(22).unwrap();
        file.sync_all().unwrap();
        let mut found = Vec::new();
        file.read_to_end(&mut found).unwrap();
        assert_eq!(found, b"0123456789\0\0\0\0\0\0\0\0\0\0ab");
        assert_eq!(file.metadata().unwrap().len(), 22);
        assert_eq!(errno(fs::metadata(&path)), Errno::NOENT);
        // A new file of that name is another.
        fs::write(&path, "new").unwrap();
        file.write_all_at(b"xyz", 0).unwrap();
        assert_eq!(read(&path), b"new");
        fs::remove_file(&path).unwrap();
    }
    mount.umount();
    assert_eq!(fs::read_dir(mount.dir()).unwrap().count(), 0);
}

#[test]
fn rename_without_replacement_and_exchange() {
    let mount = Mount::new(&[]);
    let (a, b, new) = (
        mount.commit("a", "a"),
        mount.commit("b", "b"),
        mount.path("new"),
    );
    let noreplace = RenameFlags::NOREPLACE;
    assert_eq!(rename_with(&a, &b, noreplace), Err(Errno::EXIST));
    rename_with(&a, &new, noreplace).unwrap();
    assert_eq!((read(&new), read(&b)), (b"a".to_vec(), b"b".to_vec()));

    let exchange = RenameFlags::EXCHANGE;
    assert_eq!(rename_with(&a, &b, exchange), Err(Errno::NOENT));
    rename_with(&new, &b, exchange).unwrap();
    assert_eq!((read(&new), read(&b)), (b"b".to_vec(), b"a".to_vec()));
    // A file and a directory; a staged file and a committed one.
    fs::create_dir_all(mount.path("dir/sub")).unwrap();
    rename_with(&new, &mount.path("dir"), exchange).unwrap();
    assert_eq!(read(mount.path("dir")), b"b");
    assert!(new.join("sub").is_dir());
    let staged = mount.path("tmpabcdefgh");
    fs::write(&staged, "staged").unwrap();
    rename_with(&staged, &b, exchange).unwrap();
    assert_eq!(
        (read(&staged), read(&b)),
        (b"a".to_vec(), b"staged".to_vec())
    );
    assert_eq!(read(mount.backing().join("b")), b"staged");

    assert_eq!(
        rename_with(&b, &mount.path("c"), RenameFlags::WHITEOUT),
        Err(Errno::INVAL)
    );
    assert_eq!(
        rename_with(&b, &staged, exchange | noreplace),
        Err(Errno::INVAL)
    );
}

#[test]
fn directories_are_renamed_with_all_that_is_in_them() {
    let mount = Mount::new(&[]);
    fs::create_dir_all(mount.path("a/b/c")).unwrap();
    mount.commit("a/b/c/entry", "content");
    let mut open = File::open(mount.path("a/b/c/entry")).unwrap();
    fs::create_dir_all(mount.path("x/y")).unwrap();
    mount.commit("file", "");
    let rename = |from: &str, to: &str| fs::rename(mount.path(from), mount.path(to));
    assert_eq!(errno(rename("a", "a/b/c/d")), Errno::INVAL);
    assert_eq!(errno(rename("a", "x")), Errno::NOTEMPTY);
    assert_eq!(errno(rename("a", "file")), Errno::NOTDIR);
    assert_eq!(errno(rename("file", "a")), Errno::ISDIR);
    assert_eq!(errno(rename("a/b", "nowhere/b")), Errno::NOENT);
    rename("a/b", "x/y").unwrap();
    assert_eq!(errno(fs::metadata(mount.path("a/b"))), Errno::NOENT);
    assert_eq!(read(mount.path("x/y/c/entry")), b"content");
    assert_eq!(read(mount.backing().join("x/y/c/entry")), b"content");
    // What is written under the new name goes there, and what is open goes on.
    mount.commit("x/y/c/later", "later");
    assert_eq!(read(mount.backing().join("x/y/c/later")), b"later");
    let mut content = String::new();
    open.read_to_string(&mut content).unwrap();
    assert_eq!(content, "content");
    let parent = fs::canonicalize(mount.path("x/y/c/..")).unwrap();
    assert_eq!(parent, mount.path("x/y"));
}

#[test]
fn a_directory_goes_only_when_it_is_empty() {
    let mount = Mount::new(&[]);
    fs::create_dir(mount.path("dir")).unwrap();
    fs::write(mount.path("dir/tmpabcdefgh"), "").unwrap();
    assert_eq!(errno(fs::remove_dir(mount.path("dir"))), Errno::NOTEMPTY);
    assert_eq!(errno(fs::remove_file(mount.path("dir"))), Errno::ISDIR);
    assert_eq!(errno(fs::create_dir(mount.path("dir"))), Errno::EXIST);
    let staged = mount.path("dir/tmpabcdefgh");
    assert_eq!(errno(fs::remove_dir(&staged)), Errno::NOTDIR);
    assert_eq!(errno(fs::metadata(staged.join("below"))), Errno::NOTDIR);
    fs::remove_file(staged).unwrap();
    fs::remove_dir(mount.path("dir")).unwrap();
    assert_eq!(errno(fs::metadata(mount.path("dir"))), Errno::NOENT);
    assert!(!mount.backing().join("dir").exists());
    fs::create_dir(mount.path("dir")).unwrap();
    assert!(mount.backing().join("dir").is_dir());
}

#[test]
fn directories_to_any_depth() {
    const DEPTH: usize = 100;
    let mut mount = Mount::new(&[]);
    let deep: PathBuf = (0..DEPTH)
        .map(|level| format!("level-{level:020}"))
        .collect();
    fs::create_dir_all(mount.path(&deep)).unwrap();
    mount.commit(deep.join("entry").to_str().unwrap(), "deep");
    assert_eq!(read(mount.backing().join(&deep).join("entry")), b"deep");
    mount.remount();
    assert_eq!(read(mount.path(&deep).join("entry")), b"deep");
    fs::remove_dir_all(mount.path("level-00000000000000000000")).unwrap();
    assert_eq!(fs::read_dir(mount.dir()).unwrap().count(), 0);
}

#[test]
fn symbolic_links() {
    let mut mount = Mount::new(&[]);
    let long = "x/".repeat(2_000);
    fs::create_dir(mount.path("dir")).unwrap();
    mount.commit("dir/entry", "content");
    let links = [
        ("relative", "dir/entry"),
        ("dangling", "nowhere"),
        ("absolute", "/proc/self/stat"),
        ("folder", "dir"),
        ("loop", "loop"),
        ("long", &long),
    ];
    for (name, target) in links {
        symlink(target, mount.path(name)).unwrap();
    }
    for _ in 0..2 {
        for (name, target) in links {
            let path = mount.path(name);
            assert_eq!(fs::read_link(&path).unwrap(), Path::new(target));
            let found = fs::symlink_metadata(&path).unwrap();
            assert!(found.file_type().is_symlink());
            assert_eq!(found.len(), target.len() as u64);
        }
        assert_eq!(read(mount.path("relative")), b"content");
        assert_eq!(read(mount.path("folder/entry")), b"content");
        assert_eq!(errno(fs::metadata(mount.path("dangling"))), Errno::NOENT);
        assert_eq!(errno(fs::metadata(mount.path("loop"))), Errno::LOOP);
        assert_eq!(errno(fs::remove_dir(mount.path("folder"))), Errno::NOTDIR);
        mount.remount();
    }
    fs::rename(mount.path("relative"), mount.path("dangling")).unwrap();
    assert_eq!(read(mount.path("dangling")), b"content");
    fs::remove_file(mount.path("dangling")).unwrap();
    assert_eq!(read(mount.path("dir/entry")), b"content");
    assert_eq!(errno(symlink("x", mount.path("dir"))), Errno::EXIST);
    let too_long = "x".repeat(4_096);
    assert_eq!(
        errno(symlink(too_long, mount.path("new"))),
        Errno::NAMETOOLONG
    );
}

#[test]
fn modes_and_the_umask() {
    let mut mount = Mount::new(&[]);
    mount.commit("entry", "content");
    fs::create_dir(mount.path("dir")).unwrap();
    for mode in [0o400, 0o644, 0o755, 0o000, 0o1777, 0o700] {
        for name in ["entry", "dir"] {
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(mount.path(name), permissions).unwrap();
            for path in [mount.path(name), mount.backing().join(name)] {
                assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, mode, "{name}");
            }
        }
    }
    // In a process of its own: the umask is one for all threads.
    let script = "umask 027; : > file; mkdir folder; : > tmpnew00000; mv tmpnew00000 renamed";
    let mut shell = std::process::Command::new("sh");
    crate::support::mount::done(shell.args(["-c", script]).current_dir(mount.dir()));
    for _ in 0..2 {
        for (name, mode) in [("file", 0o640), ("folder", 0o750), ("renamed", 0o640)] {
            assert_eq!(
                fs::metadata(mount.path(name)).unwrap().mode() & 0o7777,
                mode,
                "{name}"
            );
        }
        mount.remount();
    }
}

#[test]
fn flushing_files_and_directories() {
    let mount = Mount::new(&[]);
    let path = mount.path("file");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"content").unwrap();
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    File::open(mount.dir()).unwrap().sync_all().unwrap();
    rustix::fs::syncfs(File::open(mount.dir()).unwrap()).unwrap();
    assert_eq!(read(mount.backing().join("file")), b"content");
}

#[test]
fn copying_within_the_kernel() {
    let mount = Mount::new(&[]);
    let content: Vec<u8> = (0..500_000_u32).map(|at| (at % 249) as u8).collect();
    let from = File::open(mount.commit("from", &content)).unwrap();
    let mut to = File::create(mount.path("to")).unwrap();
    // copy_file_range, sendfile or splice, whichever the kernel takes.
    assert_eq!(io::copy(&mut &from, &mut to).unwrap(), 500_000);
    assert_eq!(read(mount.path("to")), content);
}

#[test]
fn space_for_a_file_cannot_be_reserved() {
    let mount = Mount::new(&[]);
    let file = File::create(mount.path("file")).unwrap();
    let reserved = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 4096);
    // glibc's posix_fallocate then writes zeros.
    assert_eq!(reserved, Err(Errno::OPNOTSUPP));
    assert_eq!(file.metadata().unwrap().len(), 0);
}

#[test]
fn the_root_cannot_be_removed_or_renamed() {
    let mount = Mount::new(&[]);
    assert_eq!(errno(fs::remove_dir(mount.dir())), Errno::BUSY);
    let elsewhere = mount.folder().join("elsewhere");
    assert_eq!(errno(fs::rename(mount.dir(), elsewhere)), Errno::BUSY);
}

#[test]
fn the_hidden_folder_cannot_be_changed() {
    let mount = Mount::new(&[]);
    let entry = mount.commit("entry", "content");
    let hidden = mount.path(".kidafs");
    let pid = hidden.join("pid");
    // The folder's mode keeps out everybody but root, who is told that it is not a matter of modes.
    let refusal = if is_root() {
        Errno::PERM
    } else {
        Errno::ACCESS
    };
    assert_eq!(errno(fs::write(hidden.join("new"), "")), refusal);
    assert_eq!(errno(fs::remove_file(&pid)), refusal);
    assert_eq!(errno(fs::rename(&entry, &pid)), refusal);
    assert_eq!(errno(fs::rename(&pid, mount.path("new"))), refusal);
    assert_eq!(errno(fs::remove_dir(&hidden)), Errno::PERM);
    assert_eq!(errno(fs::rename(&hidden, mount.path("new"))), Errno::PERM);
    assert_eq!(errno(fs::create_dir(&hidden)), Errno::EXIST);
    assert_eq!(read(entry), b"content");
    let listed = fs::read_dir(mount.dir()).unwrap().count();
    assert_eq!(listed, 1, "the hidden folder is not listed");
}

#[test]
fn an_ordinary_user_has_the_same_promises() {
    crate::support::situation::run_as_ordinary_user();
}
