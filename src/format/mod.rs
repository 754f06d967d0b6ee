//! Entry framing, file names, source hashes, marshal streams and pickles. Nothing here does I/O or
//! executes anything: every function is total over its input, and its memory is bounded by the
//! input's size times a small constant that it states.
//!
//! | module | what is in it |
//! |---|---|
//! | [`engine`] | whose entry a file is, from its name and first bytes |
//! | [`jinja2`], [`mako`], [`importlib`] | the other engines' entries |
//! | [`identity`] | what an entry says of itself: engine, version, template, source file, fingerprint |
//! | [`source`] | whether an entry was made of what is in its source file now |
//! | [`frame`] | legacy, v2, v3 and v4 entries, both ways |
//! | [`kida`] | whether the engine would take an entry |
//! | [`pattern`], [`name`], [`version`] | an entry's file name, both ways |
//! | [`temporary`] | the temporary names of kida, Jinja2, importlib and Mako |
//! | [`hash`] | the source hash |
//! | [`marshal`] | checks and describes a code object without making one |
//! | [`pickle`] | tells a truncated or torn pickle from a whole one |
//! | [`warnings`] | the compiler warnings of a v4 entry |

pub mod engine;
pub mod frame;
pub mod hash;
pub mod identity;
pub mod importlib;
pub mod jinja2;
pub mod kida;
pub mod mako;
pub mod marshal;
pub mod name;
pub mod pattern;
pub mod pickle;
pub mod source;
pub mod temporary;
mod utf8;
pub mod version;
pub mod warnings;

pub use engine::{Engine, Engines, Kind, NameKind};
pub use frame::{Entry, Format, FrameError, Section, is_unknown_format};
pub use hash::{hash_file, hash_source};
pub use identity::{File, Identity};
pub use name::{EntryName, NameError, normalize_template_name};
pub use pattern::{Pattern, PatternError};
pub use source::{Digests, Fingerprint, Mtime, SourceFile, SourceState};
pub use temporary::{Temporary, temporary_name};
pub use version::{VersionTag, VersionTagError};
