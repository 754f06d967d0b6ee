//! Sealed: nothing without a right seal over volume, path, edition, epoch and content is served.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::mount::{Mount, done, kidafs, text};
use crate::support::{entries, live};
use kidafs::evict::Reason;

/// A directory to seal beside a key for it.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = live::folder();
        fs::create_dir(folder.path().join("cache")).unwrap();
        let place = Self { folder };
        done(kidafs().args(["key", "seal"]).arg(place.key()));
        place
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    fn mount(&self) -> Mount {
        self.mount_with(&self.key())
    }

    fn mount_with(&self, key: &Path) -> Mount {
        Mount::over(&self.dir(), None, &["--seal-key", key.to_str().unwrap()])
    }

    /// Writes the key file anew.
    fn write_key(&self, text: &str) {
        let _ = fs::remove_file(self.key());
        fs::write(self.key(), text).unwrap();
        fs::set_permissions(self.key(), PermissionsExt::from_mode(0o400)).unwrap();
    }
}

fn name(number: u64) -> String {
    entries::name("a.html", number)
}

fn commit(mount: &Mount, count: u64) {
    for number in 0..count {
        mount.commit(&name(number), entries::content(number, 2_000));
    }
}

/// How many of the names are served.
fn served(mount: &Mount, count: u64) -> u64 {
    let read = |number| fs::read(mount.path(name(number))).is_ok();
    (0..count).filter(|number| read(*number)).count() as u64
}

/// Copies a file with its attributes and times, as a restore does.
fn copy(from: &Path, to: &Path) {
    let mut command = std::process::Command::new("cp");
    done(command.args(["-a", "--"]).arg(from).arg(to));
}

#[test]
fn what_was_committed_is_served_again_and_on_a_plain_restore() {
    let place = Place::new();
    let mut mount = place.mount();
    commit(&mount, 50);
    fs::create_dir(mount.path("sub")).unwrap();
    mount.commit("sub/notes.txt", "nobody's");
    mount.umount();
    let saved = place.folder.path().join("saved");
    copy(&place.dir(), &saved);
    fs::remove_dir_all(place.dir()).unwrap();
    copy(&saved, &place.dir());
    let mount = place.mount();
    assert_eq!(served(&mount, 50), 50);
    assert_eq!(fs::read(mount.path("sub/notes.txt")).unwrap(), b"nobody's");
    assert_eq!(
        mount
            .stats()
            .evictions
            .get(&Reason::Unsealed)
            .copied()
            .unwrap_or(0),
        0
    );
}

/// What somebody who lacks the key may do to the plain directory; `number` is of the entry.
type Forge = fn(&Path, &Path, u64);

const FORGERIES: [(&str, Forge); 7] = [
    ("written anew", |dir, _, number| {
        fs::remove_file(dir.join(name(number))).unwrap();
        fs::write(dir.join(name(number)), entries::content(number, 2_000)).unwrap();
    }),
    ("unsealed", |dir, _, number| {
        rustix::fs::removexattr(dir.join(name(number)), "user.kidafs.seal").unwrap();
    }),
    ("another's seal", |dir, _, number| {
        let mut seal = [0; 64];
        let of = dir.join(name(number + 1));
        let len = rustix::fs::getxattr(&of, "user.kidafs.seal", &mut seal[..]).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(
            dir.join(name(number)),
            "user.kidafs.seal",
            &seal[..len],
            flags,
        )
        .unwrap();
    }),
    ("another's file", |dir, _, number| {
        fs::remove_file(dir.join(name(number))).unwrap();
        copy(&dir.join(name(number + 1)), &dir.join(name(number)));
    }),
    ("a link to another", |dir, _, number| {
        fs::remove_file(dir.join(name(number))).unwrap();
        symlink(name(number + 1), dir.join(name(number))).unwrap();
    }),
    ("another volume's", |dir, other, number| {
        copy(&other.join(name(number)), &dir.join(name(number)));
    }),
    ("changed in place, its time set back", |dir, _, number| {
        let path = dir.join(name(number));
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, entries::content(number + 7, 2_000)).unwrap();
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(time).unwrap();
    }),
];

#[test]
fn nothing_forged_copied_or_of_another_volume_is_served() {
    let (place, other) = (Place::new(), Place::new());
    let count = FORGERIES.len() as u64 * 3;
    for place in [&place, &other] {
        let mut mount = place.mount();
        commit(&mount, count);
        mount.umount();
    }
    for (number, (_, forge)) in (0..).step_by(3).zip(&FORGERIES) {
        forge(&place.dir(), &other.dir(), number);
    }
    let mount = place.mount();
    for (number, (what, _)) in (0..).step_by(3).zip(&FORGERIES) {
        assert!(fs::read(mount.path(name(number))).is_err(), "{what}");
        assert!(
            fs::read(mount.path(name(number + 1))).is_ok(),
            "{what}: the one beside it"
        );
    }
    let stats = mount.stats();
    // The link is not even looked at.
    assert_eq!(
        stats.evictions[&Reason::Unsealed],
        FORGERIES.len() as u64 - 1
    );
    assert_eq!(stats.unserved, 1);
    assert!(stats.sealed);
}

#[test]
fn an_entry_that_is_brought_back_is_void_once_the_epoch_is_raised() {
    let place = Place::new();
    let mut mount = place.mount();
    commit(&mount, 10);
    mount.umount();
    let text = fs::read_to_string(place.key()).unwrap();
    place.write_key(&text.replace("epoch 1", "epoch 2"));
    let mut mount = place.mount();
    assert_eq!(served(&mount, 10), 0);
    commit(&mount, 5);
    mount.umount();
    assert_eq!(served(&place.mount(), 10), 5);
}

#[test]
fn a_key_is_rotated_without_a_miss() {
    let place = Place::new();
    let mut mount = place.mount();
    commit(&mount, 20);
    mount.umount();
    let first = fs::read_to_string(place.key()).unwrap();
    let new = format!("key {}\n", "ab".repeat(32));
    place.write_key(&first.replace("\nkey ", &format!("\n{new}key ")));
    let mut mount = place.mount();
    assert_eq!(served(&mount, 20), 20);
    mount.umount();
    let rekey = || {
        let mut command = kidafs();
        command.args(["seal", "--json", "--rekey", "--seal-key"]);
        done(command.arg(place.key()).arg(place.dir()))
    };
    assert!(rekey().contains("\"sealed\": 20") || rekey().contains("\"already\": 20"));
    let volume: String = first
        .lines()
        .filter(|line| !line.starts_with("key"))
        .fold(String::new(), |all, line| all + line + "\n");
    place.write_key(&(volume + &new));
    assert_eq!(served(&place.mount(), 20), 20);
    // The old key alone knows none of it any more.
    place.write_key(&first);
    assert_eq!(served(&place.mount(), 20), 0);
}

#[test]
fn a_directory_is_blessed_by_hand_and_not_by_being_there() {
    let place = Place::new();
    for number in 0..10 {
        fs::write(
            place.dir().join(name(number)),
            entries::content(number, 2_000),
        )
        .unwrap();
    }
    let mut seal = kidafs();
    done(
        seal.arg("seal")
            .arg("--seal-key")
            .arg(place.key())
            .arg(place.dir()),
    );
    fs::write(place.dir().join(name(10)), entries::content(10, 2_000)).unwrap();
    let mount = place.mount();
    assert_eq!(served(&mount, 11), 10);
    assert!(
        mount
            .backing()
            .join(".kidafs/quarantine")
            .read_dir()
            .unwrap()
            .count()
            == 1
    );
}

#[test]
fn renames_and_times_keep_what_is_sealed() {
    let place = Place::new();
    let mut mount = place.mount();
    commit(&mount, 6);
    fs::create_dir_all(mount.path("a/deep")).unwrap();
    mount.commit("a/deep/notes.txt", "below");
    fs::rename(mount.path(name(0)), mount.path(name(9))).unwrap();
    fs::rename(mount.path("a"), mount.path("b")).unwrap();
    let file = fs::File::options()
        .append(true)
        .open(mount.path(name(1)))
        .unwrap();
    file.set_modified(
        std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000),
    )
    .unwrap();
    drop(file);
    fs::set_permissions(mount.path(name(2)), PermissionsExt::from_mode(0o600)).unwrap();
    mount.umount();
    let mount = place.mount();
    for number in [9, 1, 2, 3, 4, 5] {
        fs::read(mount.path(name(number))).unwrap();
    }
    assert_eq!(fs::read(mount.path("b/deep/notes.txt")).unwrap(), b"below");
}

#[test]
fn a_key_file_that_others_could_know_or_that_is_none_is_refused() {
    let place = Place::new();
    let refused = |key: &Path, says: &str| {
        let output = kidafs()
            .arg("mount")
            .arg("--seal-key")
            .arg(key)
            .arg(place.dir())
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert!(text(&output).contains(says), "{says}: {}", text(&output));
    };
    for mode in [0o600, 0o440, 0o404, 0o644] {
        fs::set_permissions(place.key(), PermissionsExt::from_mode(mode)).unwrap();
        refused(&place.key(), "chmod 0400");
    }
    let content = fs::read(place.key()).unwrap();
    let inside = place.dir().join("key");
    fs::write(&inside, content).unwrap();
    fs::set_permissions(&inside, PermissionsExt::from_mode(0o400)).unwrap();
    refused(&inside, "is in the directory that it is to seal");
    place.write_key("key 00\n");
    refused(&place.key(), "line 1");
    fs::remove_file(place.key()).unwrap();
    fs::create_dir(place.key()).unwrap();
    refused(&place.key(), "no regular file");
    fs::remove_dir(place.key()).unwrap();
    refused(&place.key(), "cannot read the seal key");
    done(kidafs().args(["key", "seal"]).arg(place.key()));
    let again = kidafs()
        .args(["key", "seal"])
        .arg(place.key())
        .output()
        .unwrap();
    assert!(!again.status.success(), "a key is never overwritten");
    // 32 bytes and nothing else are a key too.
    fs::remove_file(place.key()).unwrap();
    fs::write(place.key(), [7; 32]).unwrap();
    fs::set_permissions(place.key(), PermissionsExt::from_mode(0o400)).unwrap();
    fs::remove_file(&inside).unwrap();
    let mut mount = place.mount();
    commit(&mount, 3);
    mount.umount();
    assert_eq!(served(&place.mount(), 3), 3);
}
