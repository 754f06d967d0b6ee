//! Entries made up for tests: names and content by number.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kidafs::tier::Digest;

/// `marshal.dumps(compile("def render(ctx):\n    return 'hello ' + ctx['name']\n", "page.html", "exec"))`
/// of CPython 3.14, in hex.
const CODE: &str = "e30000000000000000000000000100000000000000f30c0000008000520017007400520123002902630100\
000000000000000000000300000003000000f32200000080005200560052012c1a000000000000000000002c0000000000000000000000\
230029027a0668656c6c6f20da046e616d65a9002901da03637478730100000026da09706167652e68746d6cda0672656e646572720700\
00000100000073110000008000d80b1390639826956bd50b21d00421f3000000004e290172070000007204000000720800000072060000\
00da083c6d6f64756c653e720900000001000000730a000000f003010101f4020101227208000000";

/// A fast generator of numbers that look random: SplitMix64, by Sebastiano Vigna.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// The name of an entry: of a template, by its source.
pub(crate) fn name(template: &str, source: u64) -> String {
    format!("__kida_py314_{template}_{source:016x}.pyc")
}

/// A well-formed v2 entry of `size` bytes (600 at least), different for each `seed`.
pub(crate) fn content(seed: u64, size: usize) -> Vec<u8> {
    let code: Vec<u8> = (0..CODE.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&CODE[at..at + 2], 16).unwrap())
        .collect();
    let mut entry = b"\0KDA".to_vec();
    entry.extend(u32::try_from(code.len()).unwrap().to_le_bytes());
    entry.extend(code);
    let mut random = Random(seed);
    while entry.len() < size {
        entry.extend(random.next().to_le_bytes());
    }
    entry.truncate(size);
    entry
}

/// The digest that a backing file carries.
pub(crate) fn stored_digest(path: &Path) -> Option<Digest> {
    let mut value = [0; 64];
    let len = rustix::fs::getxattr(path, kidafs::tier::DIGEST_XATTR, value.as_mut_slice()).ok()?;
    Digest::from_stored(&value[..len])
}

/// The files of a directory and below, without the private folder: path and content.
pub(crate) fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name == ".kidafs" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            for (inside, bytes) in files(&entry.path()) {
                all.insert(format!("{name}/{inside}"), bytes);
            }
        } else {
            all.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    all
}

/// The names of a directory, without the private folder.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let listed = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = listed
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".kidafs")
        .collect();
    names.sort();
    names
}

/// Panics if a backing directory has a temporary file, at any depth, or a draft.
pub(crate) fn assert_no_temporary_file(dir: &Path) {
    for path in files(dir).keys() {
        assert!(
            !path.ends_with(".tmp"),
            "{path} is in the backing directory"
        );
    }
}

/// Files that the daemon began in its private folder of a backing directory.
pub(crate) fn drafts(backing: &Path) -> usize {
    fs::read_dir(backing.join(".kidafs/tmp")).map_or(0, Iterator::count)
}
