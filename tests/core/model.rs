//! Random operations on the core and on a model of it: the same results, the same tree, also after a restart.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kidafs::clock::ManualClock;
use kidafs::config::{Config, Durability};
use kidafs::vfs::{About, Caller, Changes, Error, Kind, Notices, Patience, ROOT, RenameMode, Vfs};
use proptest::prelude::*;
use rustix::io::Errno;

/// Few names, so that operations meet. Two of them are temporary names of kida's.
const NAMES: [&str; 6] = [
    "a",
    "b",
    "__kida_py314_a.html_0123456789abcdef.pyc",
    "__kida_py314_a.html_0123456789abcdef.pyc.abcdefgh.tmp",
    "__kida_py314_b.html_0123456789abcdef.pyc.abcdefgh.tmp",
    "d",
];

const MAX_ENTRY: u64 = 5_000;

/// What stands for the content of a file that is not whole and cannot be read.
const LOST: u8 = 0xee;

#[derive(Debug, Clone)]
enum Op {
    Create(Vec<usize>),
    Write(Vec<usize>, u64, Vec<u8>),
    Truncate(Vec<usize>, u64),
    Rename(Vec<usize>, Vec<usize>, RenameMode),
    Unlink(Vec<usize>),
    Mkdir(Vec<usize>),
    Rmdir(Vec<usize>),
    Symlink(Vec<usize>, String),
    Chmod(Vec<usize>, u32),
    Fsync(Vec<usize>),
    Quiet,
    Restart,
}

fn path() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..NAMES.len(), 1..3)
}

fn op() -> impl Strategy<Value = Op> {
    let data = prop::collection::vec(any::<u8>(), 0..3_000);
    let mode = prop_oneof![
        4 => Just(RenameMode::Replace),
        1 => Just(RenameMode::NoReplace),
        1 => Just(RenameMode::Exchange)
    ];
    prop_oneof![
        6 => path().prop_map(Op::Create),
        6 => (path(), 0..4_000u64, data).prop_map(|(path, at, data)| Op::Write(path, at, data)),
        2 => (path(), 0..6_000u64).prop_map(|(path, size)| Op::Truncate(path, size)),
        8 => (path(), path(), mode).prop_map(|(from, to, mode)| Op::Rename(from, to, mode)),
        3 => path().prop_map(Op::Unlink),
        4 => path().prop_map(Op::Mkdir),
        2 => path().prop_map(Op::Rmdir),
        1 => (path(), "[a-z]{1,20}").prop_map(|(path, target)| Op::Symlink(path, target)),
        1 => (path(), 0..0o777u32).prop_map(|(path, mode)| Op::Chmod(path, mode | 0o600)),
        1 => path().prop_map(Op::Fsync),
        2 => Just(Op::Quiet),
        1 => Just(Op::Restart),
    ]
}

/// The model: what a tree of files is supposed to be.
#[derive(Debug, Clone, PartialEq)]
enum Thing {
    File {
        bytes: Vec<u8>,
        mode: u32,
        committed: bool,
        /// A write that it needs to be whole has failed.
        broken: bool,
    },
    Folder(BTreeMap<usize, Thing>),
    Link(String),
}

type Tree = BTreeMap<usize, Thing>;

fn folder<'a>(tree: &'a mut Tree, path: &[usize]) -> Result<&'a mut Tree, Errno> {
    let mut at = tree;
    for name in path {
        at = match at.get_mut(name).ok_or(Errno::NOENT)? {
            Thing::Folder(inside) => inside,
            _ => return Err(Errno::NOTDIR),
        };
    }
    Ok(at)
}

fn split(path: &[usize]) -> (&[usize], usize) {
    (&path[..path.len() - 1], path[path.len() - 1])
}

fn temporary(name: usize) -> bool {
    NAMES[name].ends_with(".tmp")
}

fn model(tree: &mut Tree, op: &Op) -> Result<(), Errno> {
    match op {
        Op::Create(path) => {
            let (parent, name) = split(path);
            let parent = folder(tree, parent)?;
            if parent.contains_key(&name) {
                return Err(Errno::EXIST);
            }
            parent.insert(
                name,
                Thing::File {
                    bytes: Vec::new(),
                    mode: 0o600,
                    committed: false,
                    broken: false,
                },
            );
        }
        Op::Write(path, at, data) => {
            if at + data.len() as u64 > MAX_ENTRY {
                break_off(tree, path)?;
            }
            let bytes = file(tree, path)?;
            let (start, end) = (*at as usize, *at as usize + data.len());
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[start..end].copy_from_slice(data);
        }
        Op::Truncate(path, size) => {
            if *size > MAX_ENTRY {
                break_off(tree, path)?;
            }
            if *size == 0 {
                *broken(tree, path)? = false;
            }
            let bytes = file(tree, path)?;
            bytes.resize(*size as usize, 0);
        }
        Op::Chmod(path, bits) => {
            let (parent, name) = split(path);
            match folder(tree, parent)?.get_mut(&name).ok_or(Errno::NOENT)? {
                Thing::File { mode, .. } => *mode = *bits,
                _ => return Err(Errno::ISDIR),
            }
        }
        Op::Fsync(path) => {
            file(tree, path)?;
            let (parent, name) = split(path);
            if let Some(Thing::File { committed, .. }) = folder(tree, parent)?.get_mut(&name) {
                *committed |= !temporary(name);
            }
        }
        Op::Unlink(path) => {
            let (parent, name) = split(path);
            let parent = folder(tree, parent)?;
            match parent.get(&name).ok_or(Errno::NOENT)? {
                Thing::Folder(_) => return Err(Errno::ISDIR),
                _ => parent.remove(&name),
            };
        }
        Op::Rmdir(path) => {
            let (parent, name) = split(path);
            let parent = folder(tree, parent)?;
            match parent.get(&name).ok_or(Errno::NOENT)? {
                Thing::Folder(inside) if inside.is_empty() => parent.remove(&name),
                Thing::Folder(_) => return Err(Errno::NOTEMPTY),
                _ => return Err(Errno::NOTDIR),
            };
        }
        Op::Mkdir(path) => insert(tree, path, Thing::Folder(BTreeMap::new()))?,
        Op::Symlink(path, target) => insert(tree, path, Thing::Link(target.clone()))?,
        Op::Rename(from, to, mode) => {
            let renamed = rename(tree, from, to, *mode);
            if renamed == Err(Errno::FBIG) {
                for path in [from, to] {
                    let (parent, name) = split(path);
                    let parent = folder(tree, parent)?;
                    if !matches!(parent.get(&name), None | Some(Thing::Folder(_))) {
                        parent.remove(&name);
                    }
                }
            }
            renamed?;
        }
        Op::Quiet => settle(tree),
        Op::Restart => {
            settle(tree);
            drop_staged(tree);
        }
    }
    Ok(())
}

fn insert(tree: &mut Tree, path: &[usize], thing: Thing) -> Result<(), Errno> {
    let (parent, name) = split(path);
    let parent = folder(tree, parent)?;
    if parent.contains_key(&name) {
        return Err(Errno::EXIST);
    }
    parent.insert(name, thing);
    Ok(())
}

fn file<'a>(tree: &'a mut Tree, path: &[usize]) -> Result<&'a mut Vec<u8>, Errno> {
    let (parent, name) = split(path);
    match folder(tree, parent)?.get_mut(&name).ok_or(Errno::NOENT)? {
        Thing::File { bytes, .. } => Ok(bytes),
        _ => Err(Errno::ISDIR),
    }
}

fn broken<'a>(tree: &'a mut Tree, path: &[usize]) -> Result<&'a mut bool, Errno> {
    let (parent, name) = split(path);
    match folder(tree, parent)?.get_mut(&name).ok_or(Errno::NOENT)? {
        Thing::File { broken, .. } => Ok(broken),
        _ => Err(Errno::ISDIR),
    }
}

/// A change that does not fit: it fails at once, or with an engine's temporary name at the rename.
fn break_off(tree: &mut Tree, path: &[usize]) -> Result<(), Errno> {
    let (parent, name) = split(path);
    match folder(tree, parent)?.get_mut(&name).ok_or(Errno::NOENT)? {
        Thing::File {
            committed, broken, ..
        } => {
            *broken |= !*committed;
            if *committed || !temporary(name) {
                return Err(Errno::FBIG);
            }
            Ok(())
        }
        _ => Err(Errno::ISDIR),
    }
}

/// Whether it can be renamed.
fn is_whole(thing: &Thing) -> bool {
    match thing {
        Thing::File { broken, .. } => !broken,
        Thing::Folder(inside) => inside.values().all(is_whole),
        Thing::Link(_) => true,
    }
}

fn rename(tree: &mut Tree, from: &[usize], to: &[usize], mode: RenameMode) -> Result<(), Errno> {
    let ((from_parent, from_name), (to_parent, to_name)) = (split(from), split(to));
    folder(tree, from_parent)?;
    folder(tree, to_parent)?;
    let source = folder(tree, from_parent)?
        .get(&from_name)
        .cloned()
        .ok_or(Errno::NOENT)?;
    let target = folder(tree, to_parent)?.get(&to_name).cloned();
    if from == to {
        return Ok(());
    }
    match (&target, mode) {
        (Some(_), RenameMode::NoReplace) => return Err(Errno::EXIST),
        (None, RenameMode::Exchange) => return Err(Errno::NOENT),
        _ => {}
    }
    let into_itself = |moving: &[usize], into: &[usize]| into.starts_with(moving);
    if mode == RenameMode::Exchange {
        if into_itself(from, to_parent) || into_itself(to, from_parent) {
            return Err(Errno::INVAL);
        }
        let target = target.ok_or(Errno::NOENT)?;
        if !is_whole(&source) || !is_whole(&target) {
            return Err(Errno::FBIG);
        }
        folder(tree, from_parent)?.insert(from_name, committed(target));
        folder(tree, to_parent)?.insert(to_name, committed(source));
        return Ok(());
    }
    match (&source, &target) {
        (Thing::Folder(_), Some(Thing::Folder(inside))) if !inside.is_empty() => {
            return Err(Errno::NOTEMPTY);
        }
        (Thing::Folder(_), Some(Thing::Folder(_)) | None) => {}
        (Thing::Folder(_), Some(_)) => return Err(Errno::NOTDIR),
        (_, Some(Thing::Folder(_))) => return Err(Errno::ISDIR),
        _ => {}
    }
    if into_itself(from, to_parent) {
        return Err(Errno::INVAL);
    }
    if !is_whole(&source) {
        return Err(Errno::FBIG);
    }
    folder(tree, from_parent)?.remove(&from_name);
    folder(tree, to_parent)?.insert(to_name, committed(source));
    Ok(())
}

fn committed(thing: Thing) -> Thing {
    match thing {
        Thing::File {
            bytes,
            mode,
            broken,
            ..
        } => Thing::File {
            bytes,
            mode,
            committed: true,
            broken,
        },
        Thing::Folder(inside) => Thing::Folder(
            inside
                .into_iter()
                .map(|(name, thing)| (name, committed(thing)))
                .collect(),
        ),
        link @ Thing::Link(_) => link,
    }
}

/// What the persister does to files that are quiet: all but staged ones are committed.
fn settle(tree: &mut Tree) {
    for (name, thing) in tree {
        match thing {
            Thing::File { committed, .. } => *committed |= !temporary(*name),
            Thing::Folder(inside) => settle(inside),
            Thing::Link(_) => {}
        }
    }
}

fn drop_staged(tree: &mut Tree) {
    for thing in tree.values_mut() {
        if let Thing::File { broken, .. } = thing {
            *broken = false;
        }
    }
    tree.retain(|_, thing| {
        !matches!(
            thing,
            Thing::File {
                committed: false,
                ..
            }
        )
    });
    for thing in tree.values_mut() {
        if let Thing::Folder(inside) = thing {
            drop_staged(inside);
        }
    }
}

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
