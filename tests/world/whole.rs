//! What is committed is whole, and what was acknowledged is there.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use rustix::io::Errno;

use crate::support::entries::{content, name};
use crate::support::mount::{Mount, done, kidafs, text};
use crate::support::python::python;

const MIB: usize = 1 << 20;

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Errno {
    Errno::from_io_error(&result.unwrap_err()).unwrap()
}

/// Temporary names of each engine, and two that no engine makes, with the final name.
fn pairs() -> Vec<(String, String)> {
    let kida = name("a.html", 1);
    let jinja2 = format!("__jinja2_{}.cache", "0123456789abcdef0123".repeat(2));
    vec![
        (format!("{kida}.abcdefgh.tmp"), kida),
        (format!("{jinja2}abcdefgh.tmp"), jinja2),
        ("tmpabcdefgh".into(), "page.mako.py".into()),
        (
            "m.cpython-314.pyc.1402345".into(),
            "m.cpython-314.pyc".into(),
        ),
        ("other.part".into(), "other".into()),
        (".other.swp".into(), "third.txt".into()),
    ]
}

#[test]
fn a_file_of_which_a_write_failed_cannot_be_renamed_and_the_old_entry_stays() {
    let mount = Mount::new(&["--max-entry", "1536KiB"]);
    for (temporary, entry) in pairs() {
        mount.commit(&entry, "old");
        let (from, to) = (mount.path(&temporary), mount.path(&entry));
        // The program does not look at what its writes return.
        let file = File::create(&from).unwrap();
        let _ = (&file).write(&content(1, 2 * MIB + 200_000));
        assert_eq!(errno(fs::rename(&from, &to)), Errno::FBIG, "{temporary}");
        assert_eq!(fs::read(&to).unwrap(), b"old", "{temporary}");
        // More of the same does not make it whole, nor does a cut.
        let _ = (&file).write(b"more");
        file.set_len(100).unwrap();
        assert_eq!(errno(fs::rename(&from, &to)), Errno::FBIG, "{temporary}");
        // Written anew from the start it is.
        file.set_len(0).unwrap();
        file.write_all_at(b"whole", 0).unwrap();
        fs::rename(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"whole", "{temporary}");
    }
}

#[test]
fn a_gap_beyond_the_limit_is_a_failed_write_too() {
    let mount = Mount::new(&["--max-entry", "100KiB"]);
    let (from, to) = (mount.path("tmpabcdefgh"), mount.path("entry"));
    let file = File::create(&from).unwrap();
    file.write_all_at(b"far away", 5_000_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 5_000_008, "as it was told");
    assert_eq!(errno(fs::rename(&from, &to)), Errno::FBIG);
    let file = File::create(&from).unwrap();
    file.set_len(10_000_000).unwrap();
    assert_eq!(errno(fs::rename(&from, &to)), Errno::FBIG);
    assert!(!to.exists());
    assert_eq!(mount.stats().staging.bytes, 0, "nothing of it is kept");
}

#[test]
fn under_an_engines_temporary_name_a_full_staging_area_shows_at_the_rename() {
    let mount = Mount::new(&["--staging", "1MiB"]);
    let mut refused = 0;
    for number in 0..5 {
        let entry = name("a.html", number);
        let from = mount.path(format!("{entry}.abcdefgh.tmp"));
        fs::write(&from, content(number, 300_000)).unwrap();
        assert!(mount.stats().staging.bytes <= MIB as u64);
        if number >= 3 {
            assert_eq!(errno(fs::rename(&from, mount.path(&entry))), Errno::NOSPC);
            refused += 1;
        }
    }
    assert_eq!(refused, 2);
    for number in 0..3 {
        let entry = name("a.html", number);
        fs::rename(
            mount.path(format!("{entry}.abcdefgh.tmp")),
            mount.path(&entry),
        )
        .unwrap();
        assert_eq!(
            fs::read(mount.path(&entry)).unwrap(),
            content(number, 300_000)
        );
    }
}

#[test]
fn a_copy_in_the_place_of_a_refused_rename_is_refused_like_it() {
    let mount = Mount::new(&["--max-entry", "100KiB"]);
    for old in [true, false] {
        let (from, to) = (mount.path("tmpabcdefgh"), mount.path("page.py"));
        if old {
            mount.commit("page.py", "old");
        }
        let _ = fs::write(&from, content(1, 200_000));
        assert_eq!(errno(fs::rename(&from, &to)), Errno::FBIG);
        // What Python's shutil.move does then.
        assert_eq!(errno(File::create(&to)), Errno::FBIG);
        assert_eq!(fs::read(&to).ok(), old.then(|| b"old".to_vec()));
        // Others commit that name as ever, and then it is free.
        let other = mount.path("tmpbbbbbbbb");
        fs::write(&other, "new").unwrap();
        fs::rename(&other, &to).unwrap();
        fs::write(&to, "in place").unwrap();
        fs::remove_file(&to).unwrap();
        fs::remove_file(&from).unwrap();
    }
}

fn run_python(script: &str, arguments: &[&Path]) -> Output {
    Command::new(python())
        .args(["-B", "-c", script])
        .args(arguments)
        .output()
        .unwrap()
}

const MAKO: &str = "
import sys
from mako.lookup import TemplateLookup
lookup = TemplateLookup([sys.argv[1]], module_directory=sys.argv[2])
print(len(lookup.get_template('big.mako').render()))
";

#[test]
fn mako_leaves_no_torn_module_behind() {
    let mount = Mount::new(&["--max-entry", "1536KiB"]);
    let templates = mount.folder().join("templates");
    fs::create_dir(&templates).unwrap();
    fs::write(templates.join("big.mako"), "x".repeat(2_200_000)).unwrap();
    for round in 0..2 {
        let output = run_python(MAKO, &[&templates, mount.dir()]);
        assert!(!output.status.success(), "{round}: {}", text(&output));
        assert!(
            text(&output).contains("File too large"),
            "{}",
            text(&output)
        );
        assert!(!mount.path("big.mako.py").exists(), "{round}");
    }
    fs::write(templates.join("big.mako"), "small").unwrap();
    let output = run_python(MAKO, &[&templates, mount.dir()]);
    assert!(output.status.success(), "{}", text(&output));
}

const JINJA2: &str = "
import sys
import jinja2
cache = jinja2.FileSystemBytecodeCache(sys.argv[1])
environment = jinja2.Environment(loader=jinja2.DictLoader({'a': '{{x}}' * 500}), bytecode_cache=cache)
print(environment.get_template('a').render(x=1) == '1' * 500)
";

const KIDA: &str = "
import sys
import kida, pathlib
from kida.bytecode_cache import BytecodeCache
environment = kida.Environment(
    loader=kida.DictLoader({'a': '{{ x }}' * 500}), bytecode_cache=BytecodeCache(pathlib.Path(sys.argv[1])))
print(environment.get_template('a').render(x=1) == '1' * 500)
";

#[test]
fn no_limit_keeps_an_engine_from_rendering() {
    for options in [
        ["--staging", "4KiB"].as_slice(),
        &["--max-entry", "4KiB"],
        &["--read-only"],
        &["--max-size", "4KiB"],
    ] {
        let mount = Mount::new(options);
        for engine in [JINJA2, KIDA] {
            let output = run_python(engine, &[mount.dir()]);
            assert!(output.status.success(), "{options:?}: {}", text(&output));
            assert!(
                text(&output).contains("True"),
                "{options:?}: {}",
                text(&output)
            );
        }
        let left = fs::read_dir(mount.dir()).unwrap().count();
        assert_eq!(
            left, 0,
            "{options:?}: neither an entry nor a temporary file"
        );
    }
}

#[test]
fn a_mount_without_writes_takes_an_engines_temporary_file_and_refuses_its_rename() {
    let mount = Mount::prepared(&["--read-only"], |dir| {
        fs::write(dir.join("entry"), "old").unwrap();
    });
    for (temporary, entry) in pairs().into_iter().take(4) {
        let from = mount.path(&temporary);
        fs::write(&from, "new").unwrap();
        fs::set_permissions(&from, PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(fs::read(&from).unwrap(), b"new");
        for to in ["entry", &entry] {
            assert_eq!(errno(fs::rename(&from, mount.path(to))), Errno::ROFS);
        }
        fs::remove_file(&from).unwrap();
    }
    assert_eq!(errno(File::create(mount.path("other"))), Errno::ROFS);
    assert_eq!(errno(fs::write(mount.path("entry"), "x")), Errno::ROFS);
    assert_eq!(fs::read(mount.path("entry")).unwrap(), b"old");
    assert_eq!(crate::support::entries::names(&mount.backing()), ["entry"]);
}

/// Kills the daemon and shows what is beneath.
fn after_kill(mount: &mut Mount, look: impl FnOnce(&Path)) {
    mount.kill9();
    look(&mount.backing());
}

#[test]
fn renaming_a_directory_commits_what_is_in_it() {
    for durability in ["async", "crash", "power"] {
        let mut mount = Mount::new(&["--durability", durability]);
        let files = ["a", "sub/b", "sub/deep/c", "tmpabcdefgh", "x.pyc.1234567"];
        fs::create_dir_all(mount.path("t/sub/deep")).unwrap();
        for file in files {
            fs::write(mount.path("t").join(file), file.repeat(1_000)).unwrap();
        }
        fs::rename(mount.path("t"), mount.path("final")).unwrap();
        after_kill(&mut mount, |beneath| {
            for file in files {
                let path = beneath.join("final").join(file);
                assert_eq!(
                    fs::read_to_string(path).unwrap(),
                    file.repeat(1_000),
                    "{durability}"
                );
            }
            assert!(!beneath.join("t").exists());
        });
    }
}

#[test]
fn exchanging_a_directory_commits_both() {
    let mut mount = Mount::new(&[]);
    for dir in ["one", "two"] {
        fs::create_dir(mount.path(dir)).unwrap();
        fs::write(mount.path(dir).join("file"), dir).unwrap();
    }
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    let (one, two) = (mount.path("one"), mount.path("two"));
    rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, two, exchange).unwrap();
    after_kill(&mut mount, |beneath| {
        assert_eq!(fs::read(beneath.join("one/file")).unwrap(), b"two");
        assert_eq!(fs::read(beneath.join("two/file")).unwrap(), b"one");
    });
}

#[test]
fn a_directory_with_a_file_that_is_not_whole_is_not_renamed() {
    let mount = Mount::new(&["--max-entry", "100KiB"]);
    for file in ["tmpabcdefgh", "plain"] {
        fs::create_dir_all(mount.path("t/sub")).unwrap();
        let _ = fs::write(mount.path("t/sub").join(file), content(1, 200_000));
        let renamed = fs::rename(mount.path("t"), mount.path("final"));
        assert_eq!(errno(renamed), Errno::FBIG, "{file}");
        fs::remove_dir_all(mount.path("t")).unwrap();
    }
}

#[test]
fn fsync_of_a_directory_puts_its_names_on_the_disk() {
    for durability in ["async", "crash", "power"] {
        let mut mount = Mount::new(&["--durability", durability]);
        fs::create_dir(mount.path("d")).unwrap();
        fs::write(mount.path("d/in place"), "in place").unwrap();
        mount.commit("d/renamed", "renamed");
        File::open(mount.path("d")).unwrap().sync_all().unwrap();
        after_kill(&mut mount, |beneath| {
            for file in ["in place", "renamed"] {
                let path = beneath.join("d").join(file);
                assert_eq!(fs::read_to_string(path).unwrap(), file, "{durability}");
            }
        });
    }
}

/// A shell of another user and group.
fn as_user(id: u32, script: &str, dir: &Path) -> Output {
    Command::new("setpriv")
        .args([format!("--reuid={id}"), format!("--regid={id}")])
        .args(["--clear-groups", "sh", "-c", script])
        .current_dir(dir)
        .output()
        .unwrap()
}

#[test]
fn what_another_user_makes_is_committed_as_that_users() {
    let mount = Mount::prepared(&["--allow-other", "--trust-group"], |dir| {
        std::os::unix::fs::chown(dir, None, Some(4001)).unwrap();
        fs::set_permissions(dir, PermissionsExt::from_mode(0o775)).unwrap();
    });
    fs::set_permissions(mount.folder(), PermissionsExt::from_mode(0o755)).unwrap();
    let output = as_user(
        4001,
        "echo x >tmpabcdefgh && mv tmpabcdefgh entry && echo y >plain && mkdir d",
        mount.dir(),
    );
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(fs::metadata(mount.path("entry")).unwrap().uid(), 4001);
    File::open(mount.dir()).unwrap().sync_all().unwrap();
    for file in ["entry", "plain", "d"] {
        let found = fs::metadata(mount.backing().join(file)).unwrap();
        assert_eq!((found.uid(), found.gid()), (4001, 4001), "{file}");
    }
}

/// Without the right to give files away the daemon cannot store what belongs to others.
#[test]
fn what_cannot_be_stored_with_its_owner_is_refused_when_it_is_made() {
    let folder = crate::support::daemon::folder();
    let dir = folder.path().join("cache");
    fs::create_dir(&dir).unwrap();
    for path in [folder.path(), &dir] {
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    std::os::unix::fs::chown(&dir, None, Some(4001)).unwrap();
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o775)).unwrap();
    let started = Command::new("setpriv")
        .args(["--bounding-set=-chown", "--inh-caps=-chown"])
        .arg(kidafs().get_program())
        .args(["mount", "--allow-other", "--trust-group", "--log-file"])
        .arg(folder.path().join("log"))
        .arg(&dir)
        .env("KIDAFS_CONFIG", "/dev/null")
        .output()
        .unwrap();
    assert!(started.status.success(), "{}", text(&started));
    for script in [
        "echo x >tmpabcdefgh",
        "echo x >plain",
        "mkdir d",
        "ln -s x l",
    ] {
        let output = as_user(4001, script, &dir);
        assert!(!output.status.success(), "{script}");
        let said = text(&output);
        assert!(said.contains("not permitted"), "{script}: {said}");
    }
    // Nor can a file be given away that is not stored yet.
    fs::write(dir.join("tmpabcdefgh"), "x").unwrap();
    let given = std::os::unix::fs::chown(dir.join("tmpabcdefgh"), Some(4001), None);
    assert_eq!(errno(given), Errno::PERM);
    fs::rename(dir.join("tmpabcdefgh"), dir.join("entry")).unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    done(kidafs().arg("umount").arg(&dir));
    assert_eq!(fs::read(dir.join("entry")).unwrap(), b"x");
}

/// A mount of bindfs, which has neither files without a name nor flags for a rename.
struct Bindfs(std::path::PathBuf);

impl Bindfs {
    fn mount(source: &Path, at: &Path) -> Self {
        let mut bindfs = Command::new("bindfs");
        let output = bindfs.arg(source).arg(at).output();
        let output = output.expect("bindfs is to be installed (apt-get install bindfs)");
        assert!(output.status.success(), "{}", text(&output));
        Self(at.to_owned())
    }
}

impl Drop for Bindfs {
    fn drop(&mut self) {
        let _ = Command::new("fusermount3")
            .args(["-u", "-z"])
            .arg(&self.0)
            .status();
    }
}

#[test]
fn a_backing_filesystem_without_unnamed_files_and_rename_flags_commits_all_the_same() {
    let folder = crate::support::daemon::folder();
    let (source, bound) = (folder.path().join("source"), folder.path().join("bound"));
    let at = folder.path().join("mount");
    for dir in [&source, &bound, &at] {
        fs::create_dir(dir).unwrap();
        fs::set_permissions(dir, PermissionsExt::from_mode(0o700)).unwrap();
    }
    let bindfs = Bindfs::mount(&source, &bound);
    fs::create_dir(bound.join("c")).unwrap();
    fs::set_permissions(bound.join("c"), PermissionsExt::from_mode(0o700)).unwrap();
    let mut mount = Mount::over(&at, Some(&bound.join("c")), &[]);
    for round in 0..3 {
        for (temporary, entry) in pairs() {
            let content = format!("{entry} {round}");
            fs::write(mount.path(&temporary), &content).unwrap();
            fs::rename(mount.path(&temporary), mount.path(&entry)).unwrap();
            assert_eq!(fs::read_to_string(mount.path(&entry)).unwrap(), content);
        }
    }
    fs::create_dir(mount.path("d")).unwrap();
    fs::write(mount.path("d/in place"), "x").unwrap();
    fs::rename(mount.path("d"), mount.path("e")).unwrap();
    mount.umount();
    drop(mount);
    drop(bindfs);
    for (_, entry) in pairs() {
        let stored = fs::read_to_string(source.join("c").join(&entry)).unwrap();
        assert_eq!(stored, format!("{entry} 2"));
    }
    assert_eq!(fs::read(source.join("c/e/in place")).unwrap(), b"x");
    let drafts = source.join("c/.kidafs/tmp");
    assert_eq!(fs::read_dir(drafts).map_or(0, Iterator::count), 0);
}
