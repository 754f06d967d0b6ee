//! Random operations on the core and on a model of it: the same results, the same tree, also after a restart.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kidafs::clock::ManualClock;
use kidafs::config::{Config, Durability};
use kidafs::vfs::{About, Caller, Changes, Error, Kind, Notices, Patience, ROOT, Vfs};
use proptest::prelude::*;
use rustix::io::Errno;

use super::modelled::{LOST, MAX_ENTRY, NAMES, Op, Thing, Tree, model, op, split, temporary};

/// The core, driven by paths. Look-ups are given back, as the kernel does.
struct Real {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    durability: Durability,
    vfs: Vfs,
}

fn open(dir: &tempfile::TempDir, clock: &Arc<ManualClock>, durability: Durability) -> Vfs {
    let root = std::fs::File::open(dir.path()).unwrap().into();
    let config = Config {
        max_entry: MAX_ENTRY,
        memory: 20_000,
        durability,
        ..Config::default()
    };
    let clock = Arc::clone(clock);
    Vfs::open(root, config, clock, Notices::none(), About::default(), None).unwrap()
}

const ME: Caller = Caller { uid: 0, gid: 0 };

impl Real {
    fn new(durability: Durability) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        ));
        let vfs = open(&dir, &clock, durability);
        Self {
            dir,
            clock,
            durability,
            vfs,
        }
    }

    fn find(&self, path: &[usize]) -> Result<(u64, Kind), Errno> {
        let mut at = (ROOT, Kind::Directory);
        for name in path {
            let stat = self
                .vfs
                .lookup(at.0, OsStr::new(NAMES[*name]), Patience::Any)
                .map_err(|error| error.errno())?;
            self.vfs.forget(stat.ino, 1);
            at = (stat.ino, stat.kind);
        }
        Ok(at)
    }

    /// As the kernel does, which checks before it asks.
    fn regular(&self, path: &[usize]) -> Result<u64, Errno> {
        match self.find(path)? {
            (ino, Kind::File) => Ok(ino),
            _ => Err(Errno::ISDIR),
        }
    }

    fn parent<'a>(&self, path: &'a [usize]) -> Result<(u64, &'a OsStr), Errno> {
        let (parent, name) = split(path);
        match self.find(parent)? {
            (ino, Kind::Directory) => Ok((ino, OsStr::new(NAMES[name]))),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn run(&mut self, op: &Op) -> Result<(), Errno> {
        self.clock.advance(Duration::from_millis(10));
        let done = match op {
            Op::Create(path) => {
                let (parent, name) = self.parent(path)?;
                self.vfs
                    .create(parent, name, 0o600, ME, true)
                    .map(|stat| self.vfs.forget(stat.ino, 1))
            }
            Op::Write(path, at, data) => self.vfs.write(self.regular(path)?, *at, data, false),
            Op::Truncate(path, size) => {
                let changes = Changes {
                    size: Some(*size),
                    ..Changes::default()
                };
                self.vfs.setattr(self.regular(path)?, &changes).map(|_| ())
            }
            Op::Chmod(path, mode) => {
                let changes = Changes {
                    mode: Some(*mode),
                    ..Changes::default()
                };
                self.vfs.setattr(self.regular(path)?, &changes).map(|_| ())
            }
            Op::Fsync(path) => self.vfs.fsync(self.regular(path)?),
            Op::Unlink(path) => {
                let (parent, name) = self.parent(path)?;
                self.vfs.unlink(parent, name)
            }
            Op::Rmdir(path) => {
                let (parent, name) = self.parent(path)?;
                self.vfs.rmdir(parent, name)
            }
            Op::Mkdir(path) => {
                let (parent, name) = self.parent(path)?;
                self.vfs
                    .mkdir(parent, name, 0o700, ME)
                    .map(|stat| self.vfs.forget(stat.ino, 1))
            }
            Op::Symlink(path, target) => {
                let (parent, name) = self.parent(path)?;
                let made = self.vfs.symlink(parent, name, OsStr::new(target), ME);
                made.map(|stat| self.vfs.forget(stat.ino, 1))
            }
            Op::Rename(from, to, mode) => {
                let (from, to) = (self.parent(from)?, self.parent(to)?);
                let renamed = self.vfs.rename(from, to, *mode, Patience::Any).map(drop);
                if renamed == Err(Error::TooLarge) {
                    // As engines do; then the target's name is free again.
                    let _ = self.vfs.unlink(from.0, from.1);
                    let _ = self.vfs.unlink(to.0, to.1);
                }
                renamed
            }
            Op::Quiet => {
                self.clock.advance(Duration::from_secs(2));
                self.vfs.persist_quiet();
                Ok(())
            }
            Op::Restart => {
                assert_eq!(self.vfs.persist_all().failed, 0);
                self.vfs = open(&self.dir, &self.clock, self.durability);
                Ok(())
            }
        };
        done.map_err(|error| error.errno())
    }

    /// The tree as listings and reads show it.
    fn tree(&self, ino: u64) -> BTreeMap<String, (Kind, u32, Vec<u8>)> {
        let mut all = BTreeMap::new();
        let mut names = Vec::new();
        self.vfs
            .read_dir(ino, 0, false, |entry| {
                if !entry.is_dot {
                    names.push((entry.name.to_owned(), entry.stat));
                }
                true
            })
            .unwrap();
        for (name, stat) in names {
            let name = name.into_string().unwrap();
            match stat.kind {
                Kind::Directory => {
                    all.insert(name.clone(), (stat.kind, 0, Vec::new()));
                    for (inside, what) in self.tree(stat.ino) {
                        all.insert(format!("{name}/{inside}"), what);
                    }
                }
                Kind::File => {
                    let bytes = match self.vfs.read(stat.ino, 0, u32::MAX, Patience::Any) {
                        Err(Error::TooLarge) => vec![LOST; stat.attr.size as usize],
                        read => read.unwrap().to_vec(),
                    };
                    assert_eq!(bytes.len() as u64, stat.attr.size);
                    all.insert(name, (stat.kind, stat.attr.mode, bytes));
                }
                Kind::Symlink => {
                    let target = self.vfs.readlink(stat.ino).unwrap();
                    all.insert(name, (stat.kind, 0, target.as_encoded_bytes().to_vec()));
                }
            }
        }
        all
    }

    /// The tree as the backing directory shows it.
    fn on_disk(&self) -> BTreeMap<String, Vec<u8>> {
        fn walk(dir: &std::path::Path, prefix: &str, all: &mut BTreeMap<String, Vec<u8>>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
                let kind = entry.file_type().unwrap();
                if name == ".kidafs" {
                    assert_eq!(
                        std::fs::read_dir(entry.path().join("tmp")).unwrap().count(),
                        0
                    );
                } else if kind.is_dir() {
                    walk(&entry.path(), &format!("{name}/"), all);
                } else if kind.is_file() {
                    all.insert(name, std::fs::read(entry.path()).unwrap());
                }
            }
        }
        let mut all = BTreeMap::new();
        walk(self.dir.path(), "", &mut all);
        all
    }
}

fn flat(
    tree: &Tree,
    prefix: &str,
    all: &mut BTreeMap<String, (Kind, u32, Vec<u8>)>,
    only_committed: bool,
) {
    for (name, thing) in tree {
        let path = format!("{prefix}{}", NAMES[*name]);
        match thing {
            Thing::Folder(inside) => {
                flat(inside, &format!("{path}/"), all, only_committed);
                all.insert(path, (Kind::Directory, 0, Vec::new()));
            }
            Thing::File {
                committed: false, ..
            } if only_committed => {}
            Thing::File {
                bytes,
                mode,
                committed,
                broken,
            } => {
                let lost = *broken && !committed && temporary(*name);
                let bytes = if lost {
                    vec![LOST; bytes.len()]
                } else {
                    bytes.clone()
                };
                all.insert(path, (Kind::File, *mode, bytes));
            }
            Thing::Link(target) => {
                all.insert(path, (Kind::Symlink, 0, target.clone().into_bytes()));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_core_does_what_the_model_does(
        durability in prop_oneof![
            Just(Durability::Crash),
            Just(Durability::Power),
            Just(Durability::Async)
        ],
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut real = Real::new(durability);
        let mut tree = Tree::new();
        for op in &ops {
            prop_assert_eq!(real.run(op), model(&mut tree, op), "{:?}", op);
            let mut expected = BTreeMap::new();
            flat(&tree, "", &mut expected, false);
            prop_assert_eq!(real.tree(ROOT), expected.clone(), "after {:?}", op);
            let committed = {
                let mut all = BTreeMap::new();
                flat(&tree, "", &mut all, true);
                all.into_iter().filter(|(_, (kind, _, _))| *kind == Kind::File)
            };
            let on_disk = real.on_disk();
            for (path, (_, _, bytes)) in committed {
                // Content changed in place may be newer than what is on disk, until it has been quiet.
                let settled = matches!(op, Op::Quiet | Op::Restart);
                let promised = settled || durability != Durability::Async;
                prop_assert!(!promised || on_disk.contains_key(&path), "{} is not on disk after {:?}", path, op);
                prop_assert!(!settled || on_disk[&path] == bytes, "{} is old on disk after {:?}", path, op);
            }
            prop_assert!(on_disk.keys().all(|path| expected.contains_key(path)), "{:?}", on_disk.keys());
        }
        drop(real);
    }
}
