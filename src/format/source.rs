//! An entry's source: which file it is, and whether the entry was made of what is in it now.
//!
//! Nothing here looks at a file. Whoever does hands over what the file's `stat` says and, where a
//! [`Fingerprint`] needs it, the [`Digests`] of its content; the rules that compare the two are the engines' own.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

mod digests;

pub use digests::Digests;
pub(super) use digests::sha1_hex;

/// Which file an entry was made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SourceFile {
    /// This absolute path. Whoever wrote the entry chose it: see the caller's rules for opening it.
    At(PathBuf),
    /// This path beneath the cache's own root: bytecode of a module that is itself a cache's file.
    InCache(PathBuf),
    /// A path that is relative to where the engine was started, which is not known.
    Relative(PathBuf),
}

impl SourceFile {
    /// The file that a code object names; `None` for names such as `<template>`, which are no file's.
    pub fn named(path: Vec<u8>) -> Option<Self> {
        if path.is_empty() || (path.starts_with(b"<") && path.ends_with(b">")) {
            return None;
        }
        let path = PathBuf::from(OsString::from_vec(path));
        Some(if path.is_absolute() {
            Self::At(path)
        } else {
            Self::Relative(path)
        })
    }

    /// The path as it is, whatever it is relative to.
    pub fn path(&self) -> &Path {
        match self {
            Self::At(path) | Self::InCache(path) | Self::Relative(path) => path,
        }
    }
}

/// A time of modification as `stat` gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mtime {
    /// Seconds since 1970, rounded down.
    pub seconds: i64,
    /// Nanoseconds of that second.
    pub nanos: u32,
}

impl Mtime {
    /// Python's `int(os.stat(path).st_mtime)`: the time becomes a float on the way, so the last fractions
    /// of a microsecond of a second count as the next one.
    fn truncated(self) -> i64 {
        (self.seconds as f64 + 1e-9 * f64::from(self.nanos)) as i64
    }
}

/// A source file as it is now.
#[derive(Debug, Clone)]
pub struct SourceState {
    /// When it was last modified.
    pub mtime: Mtime,
    /// Its size in bytes.
    pub size: u64,
    /// Its content's digests; `None` if it was not read.
    pub digests: Option<Digests>,
}

/// What an entry tells about the source it was made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Fingerprint {
    /// The first 16 hex digits of SHA-256 of the template's text (kida, in the file's name).
    Sha256(String),
    /// SHA-1 of the template's text, as 40 hex digits (Jinja2, after the magic).
    Sha1(String),
    /// The generator's number and the module's own time of modification (Mako).
    Generated {
        /// `_magic_number`.
        magic: u32,
        /// When the module's file was last modified, in whole seconds.
        mtime: i64,
    },
    /// The source's time and size, each modulo 2^32 (importlib).
    MtimeSize {
        /// Whole seconds since 1970.
        mtime: u32,
        /// Bytes.
        size: u32,
    },
    /// A hash of the source's bytes that is keyed with the interpreter's magic number (importlib, PEP 552).
    Keyed {
        /// The key.
        magic: u16,
        /// The hash.
        hash: [u8; 8],
        /// The interpreter compares it; else the entry is taken as it is.
        checked: bool,
    },
}

/// The number that Mako writes since 0.9; an older one is generated anew.
const MAKO_MAGIC: u32 = 10;

/// The fewest hex digits of a hash that are taken for one. Fewer could agree by chance.
const MIN_DIGITS: usize = 8;

impl Fingerprint {
    /// kida's, from the hash in a file's name; `None` if that is too short to prove anything.
    pub(super) fn sha256(prefix: &str) -> Option<Self> {
        (prefix.len() >= MIN_DIGITS).then(|| Self::Sha256(prefix.to_owned()))
    }

    /// Whether [`matches`](Self::matches) needs the source's content, or its `stat` is enough.
    pub fn needs_content(&self) -> bool {
        match self {
            Self::Sha256(_) | Self::Sha1(_) => true,
            Self::Keyed { checked, .. } => *checked,
            Self::Generated { .. } | Self::MtimeSize { .. } => false,
        }
    }

    /// Whether the engine would use the entry, the source being what it is now. `None` if the content is
    /// needed for that and was not read.
    ///
    /// | engine | rule |
    /// |---|---|
    /// | kida, Jinja2 | the hash of the text, as some loader of the engine reads the file, is the entry's |
    /// | Mako | the module is not older than the template in whole seconds, and its number is not an older Mako's (`Template._compile_from_file`) |
    /// | importlib | time and size are the source's, or the hash is its content's, or need not be (`SourceLoader.get_code`) |
    pub fn matches(&self, source: &SourceState) -> Option<bool> {
        let digests = source.digests.as_ref();
        Some(match self {
            Self::Sha256(prefix) => digests?.has_sha256(prefix),
            Self::Sha1(sum) => digests?.has_sha1(sum),
            Self::Generated { magic, mtime } => {
                *magic >= MAKO_MAGIC && *mtime >= source.mtime.seconds
            }
            Self::MtimeSize { mtime, size } => {
                // Both are cut to 32 bits, as the interpreter does.
                *mtime == source.mtime.truncated() as u32 && *size == source.size as u32
            }
            Self::Keyed {
                magic,
                hash,
                checked,
            } => !checked || digests?.has_keyed(*magic, *hash),
        })
    }

    /// The fingerprint in a few characters, for people: the first digits of a hash, or a time.
    pub fn short(&self) -> String {
        match self {
            Self::Sha256(hash) | Self::Sha1(hash) => {
                let end = hash.char_indices().nth(MIN_DIGITS).map(|(at, _)| at);
                hash[..end.unwrap_or(hash.len())].to_owned()
            }
            Self::Generated { mtime, .. } => format!("mtime {mtime}"),
            Self::MtimeSize { mtime, size } => format!("mtime {mtime}, {size} bytes"),
            Self::Keyed { hash, .. } => super::hash::hex(&hash[..4]),
        }
    }
}

#[cfg(test)]
mod tests;
