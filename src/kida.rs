//! The engine's own cache class, over any directory: a mount or a plain one.
//!
//! Its behaviour is that of kida's `BytecodeCache`, method by method, with its failures. It differs
//! where there is no interpreter to ask:
//!
//! - Sections are bytes, not objects. The code section must unmarshal to a code object
//!   ([`crate::format::marshal`]); the engine takes any object, which can be of no use to it. The
//!   code of another interpreter than CPython 3.11 to 3.14 is not checked, for its format is not known here.
//! - A precomputed or AST section is followed opcode by opcode and not loaded
//!   ([`crate::format::kida`]). A pickle that is whole, and yet would not load or would be a syntax tree of
//!   another shape, is therefore handed out; the engine itself then drops the AST or the entry.
//! - An entry in a format of a later engine (`[n]KDA` with an unknown number) is a miss and stays; the engine
//!   removes it.
//! - The version tag is a parameter; its default is `py314`. It decides the format that is written, as each
//!   release of the engine writes its own.
//! - The engine lets some faults of a code section escape as a `TypeError`; here each removes the entry.

use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use log::debug;
use serde::Serialize;
use thiserror::Error;

use crate::clock::Clock;
use crate::format::kida::{EntryFault, judge};
use crate::format::marshal::MarshalError;
use crate::format::name::{is_counted, is_counted_for};
use crate::format::pickle::PickleError;
use crate::format::warnings::WarningsError;
use crate::format::{Entry, Format, FrameError, NameError, Pattern, VersionTag};

/// How long the engine's `cleanup` keeps an entry unless told otherwise: 30 days.
pub const DEFAULT_MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A directory of entries.
#[derive(Debug, Clone)]
pub struct BytecodeCache {
    dir: PathBuf,
    pattern: Pattern,
    version: VersionTag,
}

/// What [`BytecodeCache::get`] found: an entry's bytes, each section checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    bytes: Vec<u8>,
    format: Format,
    code: Range<usize>,
    precomputed: Option<Range<usize>>,
    warnings: Option<Range<usize>>,
    ast: Option<Range<usize>>,
}

/// What [`BytecodeCache::set`] is to store, each part as the engine serializes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parts<'a> {
    /// A marshalled code object.
    pub code: &'a [u8],
    /// The pickled list of precomputed values; empty is the same as none.
    pub precomputed: Option<&'a [u8]>,
    /// The pickled syntax tree; empty is the same as none.
    pub ast: Option<&'a [u8]>,
    /// The JSON list of compiler warnings; empty is the same as none. Only an engine whose version tag
    /// says so keeps them ([`VersionTag::has_warnings`]).
    pub warnings: Option<&'a [u8]>,
}

/// What became of a [`BytecodeCache::set`].
#[derive(Debug)]
pub enum Stored {
    /// The entry is there under its final name.
    Yes(Format),
    /// The operating system refused. The engine takes no notice: not to be cached is not an error. Nothing
    /// was changed, and no temporary file is left.
    No(io::Error),
}

/// Why parts cannot be stored at all.
#[derive(Debug, Error)]
pub enum SetError {
    /// The template has no file name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The code would be removed by the next `get`.
    #[error("the code does not unmarshal: {0}")]
    Code(#[from] MarshalError),
    /// The precomputed values would have the entry removed by the next `get`.
    #[error("the precomputed values are not a pickle: {0}")]
    Precomputed(#[source] PickleError),
    /// The syntax tree would be ignored by the next `get`.
    #[error("the syntax tree is not a pickle: {0}")]
    Ast(#[source] PickleError),
    /// The warnings would have the entry removed by the next `get`.
    #[error("the warnings are not the engine's: {0}")]
    Warnings(#[source] WarningsError),
    /// The version tag is of an engine that keeps no warnings.
    #[error(
        "the engine with the version tag {0} keeps no warnings in its entries: leave them out, or give the tag of one that does, such as {0}_warn1"
    )]
    NoWarnings(String),
    /// The values are whole and yet would have the entry removed by the next `get`.
    #[error("{0}, for which the engine would remove it")]
    Refused(#[source] EntryFault),
    /// A part is longer than its length field can say.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl From<EntryFault> for SetError {
    fn from(fault: EntryFault) -> Self {
        match fault {
            EntryFault::Frame(error) => Self::Frame(error),
            EntryFault::Code(error) => Self::Code(error),
            EntryFault::Precomputed(error) => Self::Precomputed(error),
            EntryFault::Warnings(error) => Self::Warnings(error),
            EntryFault::NotAList | EntryFault::NotATree => Self::Refused(fault),
        }
    }
}

/// What the engine's `stats` tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Names that match `__kida_*.pyc`, of whatever kind.
    pub file_count: u64,
    /// Their sizes in bytes, symbolic links followed.
    pub total_bytes: u64,
}

/// An entry that [`BytecodeCache::cleanup`] would remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Victim {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last modified.
    pub modified: SystemTime,
}

impl BytecodeCache {
    /// The cache in `dir`, which is created if it is missing, parents too. The version tag is `py314`.
    ///
    /// # Errors
    /// The directory cannot be created, or is a file.
    pub fn new(dir: impl Into<PathBuf>, pattern: Pattern) -> io::Result<Self> {
        let cache = Self::existing(dir, pattern);
        fs::create_dir_all(&cache.dir)?;
        Ok(cache)
    }

    /// The cache in `dir`, which is left alone: nothing is created if it is missing, and an absent
    /// directory has no entries.
    pub fn existing(dir: impl Into<PathBuf>, pattern: Pattern) -> Self {
        Self {
            dir: dir.into(),
            pattern,
            version: VersionTag::default(),
        }
    }

    /// The same cache for another interpreter or engine.
    #[must_use]
    pub fn with_version(self, version: VersionTag) -> Self {
        Self { version, ..self }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How entries are named.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// The version tag of the entries that [`get`](Self::get) and [`set`](Self::set) are about.
    pub fn version(&self) -> &VersionTag {
        &self.version
    }

    /// An entry's path.
    ///
    /// # Errors
    /// The template has no file name.
    pub fn path(
        &self,
        name: &str,
        source_hash: &str,
        context_hash: Option<&str>,
    ) -> Result<PathBuf, NameError> {
        let file = self
            .pattern
            .file_name(&self.version, name, source_hash, context_hash)?;
        Ok(self.dir.join(file))
    }

    /// An entry, or `None` on a miss or any read error.
    ///
    /// An entry is removed and a miss if it is truncated, if its code does not unmarshal, or if its
    /// precomputed values or its warnings are not what the engine takes ([`judge`]). A damaged AST is left
    /// out, and the rest is valid. An entry in a format of a later engine is a miss and stays.
    ///
    /// # Errors
    /// The template has no file name.
    pub fn get(
        &self,
        name: &str,
        source_hash: &str,
        context_hash: Option<&str>,
    ) -> Result<Option<Cached>, NameError> {
        let path = self.path(name, source_hash, context_hash)?;
        let Ok(bytes) = fs::read(&path) else {
            return Ok(None);
        };
        match Cached::from_bytes(bytes, &self.version) {
            Ok(cached) => Ok(Some(cached)),
            Err(fault) if fault.is_unknown_format() => {
                debug!("{}: {fault}", path.display());
                Ok(None)
            }
            Err(fault) => {
                debug!("{}: removed: {fault}", path.display());
                // Whether it goes or not, it is a miss; the engine does not look either.
                let _ = fs::remove_file(&path);
                Ok(None)
            }
        }
    }

    /// Writes an entry to a temporary file beside its final name and renames it. The format is the one that
    /// the engine of the version tag writes: v4 where the tag ends with `_warn1`, with an empty list
    /// for no warnings; else v3 when there are precomputed values, and v2 without. The file's mode is 0600, as
    /// Python's temporary files are created.
    ///
    /// # Errors
    /// What is to be stored is no entry. An error of the operating system is not one of these: see
    /// [`Stored::No`].
    pub fn set(
        &self,
        name: &str,
        source_hash: &str,
        context_hash: Option<&str>,
        parts: &Parts<'_>,
    ) -> Result<Stored, SetError> {
        let path = self.path(name, source_hash, context_hash)?;
        let given = |part: Option<&[u8]>| part.is_some_and(|part| !part.is_empty());
        let has_warnings = self.version.has_warnings();
        if given(parts.warnings) && !has_warnings {
            return Err(SetError::NoWarnings(self.version.to_string()));
        }
        let entry = Entry {
            format: match (has_warnings, given(parts.precomputed)) {
                (true, _) => Format::V4,
                (false, true) => Format::V3,
                (false, false) => Format::V2,
            },
            code: parts.code,
            precomputed: parts.precomputed.filter(|part| !part.is_empty()),
            warnings: has_warnings.then(|| {
                let warnings = parts.warnings.filter(|part| !part.is_empty());
                warnings.unwrap_or(b"[]")
            }),
            ast: parts.ast.filter(|part| !part.is_empty()),
        };
        let bytes = entry.encode()?;
        // Nothing that the next `get` would remove, or leave out.
        if let Some(fault) = judge(self.version.as_str(), &bytes)?.ast_fault {
            return Err(SetError::Ast(fault));
        }
        Ok(match replace(&path, &bytes) {
            Ok(()) => Stored::Yes(entry.format),
            Err(error) => Stored::No(error),
        })
    }

    /// Removes all entries, or only those of this interpreter (`py314`, whatever the rest of the version
    /// tag is); returns the number removed. What cannot be removed stays and is not counted.
    ///
    /// # Errors
    /// The directory cannot be listed, for another reason than that it is missing. The engine would
    /// return 0.
    pub fn clear(&self, current_version_only: bool) -> io::Result<u64> {
        let python = self.version.python();
        let mut removed = 0;
        for path in self.counted()? {
            let name = path.file_name().unwrap_or_default();
            if (!current_version_only || is_counted_for(name, python)) && remove(&path) {
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The entries that [`cleanup`](Self::cleanup) would remove, in the order of their names.
    ///
    /// # Errors
    /// As for [`clear`](Self::clear).
    pub fn victims(&self, max_age: Duration, clock: &dyn Clock) -> io::Result<Vec<Victim>> {
        let Some(threshold) = clock.now().checked_sub(max_age) else {
            return Ok(Vec::new());
        };
        let mut victims = Vec::new();
        for path in self.counted()? {
            // What cannot be inspected is kept.
            let inspected = fs::metadata(&path).and_then(|m| Ok((m.modified()?, m.len())));
            let Ok((modified, size)) = inspected else {
                continue;
            };
            if modified < threshold {
                victims.push(Victim {
                    path,
                    size,
                    modified,
                });
            }
        }
        Ok(victims)
    }

    /// Removes the entries that were last modified longer ago than `max_age`; returns the number removed.
    ///
    /// # Errors
    /// As for [`clear`](Self::clear).
    pub fn cleanup(&self, max_age: Duration, clock: &dyn Clock) -> io::Result<u64> {
        let victims = self.victims(max_age, clock)?;
        Ok(victims.iter().filter(|victim| remove(&victim.path)).count() as u64)
    }

    /// The number of entries and their bytes.
    ///
    /// # Errors
    /// As for [`clear`](Self::clear).
    pub fn stats(&self) -> io::Result<Stats> {
        let mut stats = Stats::default();
        for path in self.counted()? {
            stats.file_count += 1;
            stats.total_bytes += fs::metadata(&path).map_or(0, |metadata| metadata.len());
        }
        Ok(stats)
    }

    /// What the engine's glob `__kida_*.pyc` gives, sorted: names of any kind, directories and dangling
    /// links included, whatever the pattern is.
    fn counted(&self) -> io::Result<Vec<PathBuf>> {
        let listing = match fs::read_dir(&self.dir) {
            Ok(listing) => listing,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut paths = Vec::new();
        for file in listing {
            let file = file?;
            if is_counted(&file.file_name()) {
                paths.push(file.path());
            }
        }
        paths.sort();
        Ok(paths)
    }
}

impl Cached {
    fn from_bytes(bytes: Vec<u8>, version: &VersionTag) -> Result<Self, EntryFault> {
        let entry = judge(version.as_str(), &bytes)?.entry;
        // The sections lie within the bytes: kept by their places, as both move together.
        let within = |part: &[u8]| {
            let start = part.as_ptr().addr() - bytes.as_ptr().addr();
            start..start + part.len()
        };
        Ok(Self {
            format: entry.format,
            code: within(entry.code),
            precomputed: entry.precomputed.map(within),
            warnings: entry.warnings.map(within),
            ast: entry.ast.map(within),
            bytes,
        })
    }

    /// How the entry is framed.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The marshalled code object.
    pub fn code(&self) -> &[u8] {
        &self.bytes[self.code.clone()]
    }

    /// The pickled precomputed values, if there are any.
    pub fn precomputed(&self) -> Option<&[u8]> {
        Some(&self.bytes[self.precomputed.clone()?])
    }

    /// The JSON list of compiler warnings; v4 only.
    pub fn warnings(&self) -> Option<&[u8]> {
        Some(&self.bytes[self.warnings.clone()?])
    }

    /// The pickled syntax tree, if there is one and it is whole.
    pub fn ast(&self) -> Option<&[u8]> {
        Some(&self.bytes[self.ast.clone()?])
    }
}

/// Whether a file is gone; one that someone else removed in the meantime counts, as with the engine.
fn remove(path: &Path) -> bool {
    match fs::remove_file(path) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        Err(error) => {
            debug!("{} is not removed: {error}", path.display());
            false
        }
    }
}

/// Puts a file in the place of another as a whole. No temporary file is left if that fails.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (temporary, mut file) = create_beside(path)?;
    let done = file.write_all(bytes).and_then(|()| {
        drop(file);
        fs::rename(&temporary, path)
    });
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    done
}

/// Creates `<final>.XXXXXXXX.tmp`, as the engine's `NamedTemporaryFile` does, so that a mount sees a
/// temporary name and stages the file.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    const ATTEMPTS: usize = 100;
    let mut last = io::Error::from(ErrorKind::AlreadyExists);
    for _ in 0..ATTEMPTS {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}.tmp", random_word()));
        let temporary = PathBuf::from(name);
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary);
        match created {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Eight characters of the alphabet of Python's `tempfile`.
fn random_word() -> String {
    const ALPHABET: &[u8; 37] = b"abcdefghijklmnopqrstuvwxyz0123456789_";
    // Seeded by the operating system and different each time; an attacker's guess would gain nothing,
    // as the file is created exclusively.
    let mut number = RandomState::new().build_hasher().finish();
    let mut word = String::with_capacity(8);
    for _ in 0..8 {
        word.push(char::from(ALPHABET[(number % 37) as usize]));
        number /= 37;
    }
    word
}
