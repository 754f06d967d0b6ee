//! Whether the engine would take an entry of its own, judged as its `BytecodeCache.get` does.
//!
//! | part | what removes the entry | what is forgiven |
//! |---|---|---|
//! | frame | a section that ends too early | a format number of a later engine: unknown, not damaged |
//! | code | it does not unmarshal to a code object | a stream of an interpreter that is not known (3.15 and later): not judged |
//! | precomputed | it is no whole pickle; in v4 also: it is no list | the same interpreters' pickles |
//! | warnings (v4) | they are not what [`warnings`](super::warnings) takes | those of a later ABI (`_warn2`) |
//! | AST | in v4: it is whole and yet no object of a class | it is no whole pickle: the rest of the entry stays valid |
//!
//! What only loading a pickle could tell (a class that does not exist, a syntax tree of another shape)
//! is not judged; see [`pickle`].

use thiserror::Error;

use super::marshal::{self, MarshalError};
use super::pickle::{self, PickleError, Top};
use super::version::{self, is_readable, python_part};
use super::warnings::{Codes, WarningsError, check_warnings};
use super::{Entry, Format, FrameError};

/// Why the engine would remove an entry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EntryFault {
    /// Its frame is broken, or of a later engine: see [`EntryFault::is_unknown_format`].
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Its code does not unmarshal.
    #[error("its code does not unmarshal: {0}")]
    Code(#[from] MarshalError),
    /// Its precomputed values are no pickle.
    #[error("its precomputed values are no pickle: {0}")]
    Precomputed(#[source] PickleError),
    /// Its precomputed values are a pickle of something else than a list.
    #[error("its precomputed values are no list")]
    NotAList,
    /// Its warnings are not the engine's.
    #[error("its warnings cannot be read: {0}")]
    Warnings(#[from] WarningsError),
    /// Its syntax tree is a pickle of something that can be none.
    #[error("its syntax tree is a pickle of something else")]
    NotATree,
}

impl EntryFault {
    /// The fault is none: the entry is in a format of a later engine, and nothing but its digest can be
    /// checked.
    pub fn is_unknown_format(&self) -> bool {
        matches!(self, Self::Frame(FrameError::UnknownFormat(_)))
    }
}

/// An entry that the engine would take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged<'a> {
    /// Its sections. The AST is missing where it is damaged.
    pub entry: Entry<'a>,
    /// Why the AST is left out, if it is.
    pub ast_fault: Option<PickleError>,
    /// The code and the pickles were looked at: the version tag is of an interpreter that is known.
    pub is_readable: bool,
}

/// Judges an entry; `version` is the version tag in its name.
///
/// Total over its input; memory as [`marshal::check`] and [`pickle::check`].
///
/// # Errors
/// The engine would remove the entry; the first fault.
pub fn judge<'a>(version: &str, content: &'a [u8]) -> Result<Judged<'a>, EntryFault> {
    let mut entry = Entry::parse(content)?;
    let is_readable = is_readable(python_part(version));
    let mut ast_fault = None;
    if is_readable {
        marshal::check(entry.code)?;
        if let Some(precomputed) = entry.precomputed {
            check_precomputed(entry.format, precomputed)?;
        }
    }
    if let Some(warnings) = entry.warnings
        && version::warn_of(version).is_none_or(|abi| abi <= 1)
    {
        check_warnings(warnings, codes_of(version))?;
    }
    if is_readable && let Some(ast) = entry.ast {
        let is_strict = entry.format == Format::V4 && version::kida_of(version).is_some();
        match pickle::read(ast) {
            Ok(whole) if is_strict && matches!(whole.top, Top::List | Top::Plain) => {
                return Err(EntryFault::NotATree);
            }
            Ok(_) => {}
            Err(fault) => {
                entry.ast = None;
                ast_fault = Some(fault);
            }
        }
    }
    Ok(Judged {
        entry,
        ast_fault,
        is_readable,
    })
}

/// Whether the engine takes these precomputed values in an entry of this format.
///
/// # Errors
/// It would remove the entry.
pub fn check_precomputed(format: Format, precomputed: &[u8]) -> Result<(), EntryFault> {
    let whole = pickle::read(precomputed).map_err(EntryFault::Precomputed)?;
    if format == Format::V4 && matches!(whole.top, Top::Plain | Top::Object) {
        return Err(EntryFault::NotAList);
    }
    Ok(())
}

/// Which warning codes an engine of this version tag knows. Of a release that came later than this one
/// of kidafs nothing is known but the codes' form.
pub fn codes_of(version: &str) -> Codes {
    if version::kida_of(version).is_none_or(|kida| kida == "0_12_0") {
        Codes::Known
    } else {
        Codes::Any
    }
}
