//! The model of the core: a tree in memory, the random operations, and what each does to the tree.

use std::collections::BTreeMap;

use kidafs::vfs::RenameMode;
use proptest::prelude::*;
use rustix::io::Errno;

/// Few names, so that operations meet. Two of them are temporary names of kida's.
pub(crate) const NAMES: [&str; 6] = [
    "a",
    "b",
    "__kida_py314_a.html_0123456789abcdef.pyc",
    "__kida_py314_a.html_0123456789abcdef.pyc.abcdefgh.tmp",
    "__kida_py314_b.html_0123456789abcdef.pyc.abcdefgh.tmp",
    "d",
];

pub(crate) const MAX_ENTRY: u64 = 5_000;

/// What stands for the content of a file that is not whole and cannot be read.
pub(crate) const LOST: u8 = 0xee;

#[derive(Debug, Clone)]
pub(crate) enum Op {
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

pub(crate) fn path() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..NAMES.len(), 1..3)
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
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
pub(crate) enum Thing {
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

pub(crate) type Tree = BTreeMap<usize, Thing>;

pub(crate) fn folder<'a>(tree: &'a mut Tree, path: &[usize]) -> Result<&'a mut Tree, Errno> {
    let mut at = tree;
    for name in path {
        at = match at.get_mut(name).ok_or(Errno::NOENT)? {
            Thing::Folder(inside) => inside,
            _ => return Err(Errno::NOTDIR),
        };
    }
    Ok(at)
}

pub(crate) fn split(path: &[usize]) -> (&[usize], usize) {
    (&path[..path.len() - 1], path[path.len() - 1])
}

pub(crate) fn temporary(name: usize) -> bool {
    NAMES[name].ends_with(".tmp")
}

pub(crate) fn model(tree: &mut Tree, op: &Op) -> Result<(), Errno> {
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

pub(crate) fn insert(tree: &mut Tree, path: &[usize], thing: Thing) -> Result<(), Errno> {
    let (parent, name) = split(path);
    let parent = folder(tree, parent)?;
    if parent.contains_key(&name) {
        return Err(Errno::EXIST);
    }
    parent.insert(name, thing);
    Ok(())
}

pub(crate) fn file<'a>(tree: &'a mut Tree, path: &[usize]) -> Result<&'a mut Vec<u8>, Errno> {
    let (parent, name) = split(path);
    match folder(tree, parent)?.get_mut(&name).ok_or(Errno::NOENT)? {
        Thing::File { bytes, .. } => Ok(bytes),
        _ => Err(Errno::ISDIR),
    }
}

pub(crate) fn broken<'a>(tree: &'a mut Tree, path: &[usize]) -> Result<&'a mut bool, Errno> {
    let (parent, name) = split(path);
    match folder(tree, parent)?.get_mut(&name).ok_or(Errno::NOENT)? {
        Thing::File { broken, .. } => Ok(broken),
        _ => Err(Errno::ISDIR),
    }
}

/// A change that does not fit: it fails at once, or with an engine's temporary name at the rename.
pub(crate) fn break_off(tree: &mut Tree, path: &[usize]) -> Result<(), Errno> {
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
pub(crate) fn is_whole(thing: &Thing) -> bool {
    match thing {
        Thing::File { broken, .. } => !broken,
        Thing::Folder(inside) => inside.values().all(is_whole),
        Thing::Link(_) => true,
    }
}

pub(crate) fn rename(
    tree: &mut Tree,
    from: &[usize],
    to: &[usize],
    mode: RenameMode,
) -> Result<(), Errno> {
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

pub(crate) fn committed(thing: Thing) -> Thing {
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
pub(crate) fn settle(tree: &mut Tree) {
    for (name, thing) in tree {
        match thing {
            Thing::File { committed, .. } => *committed |= !temporary(*name),
            Thing::Folder(inside) => settle(inside),
            Thing::Link(_) => {}
        }
    }
}

pub(crate) fn drop_staged(tree: &mut Tree) {
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
