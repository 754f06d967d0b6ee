//! Marshal streams: whether one would unmarshal, and what the code object in it looks like. Nothing is
//! ever executed and no code object is made.
//!
//! The reader accepts what `marshal.loads` of CPython 3.11 to 3.14 accepts and rejects what it
//! rejects; its rules follow `Python/marshal.c` and the checks of `Objects/codeobject.c`, and are
//! compared with the interpreter's own on thousands of damaged streams (`tests/format/marshal_differential.rs`).
//! Three things are known to differ:
//!
//! - A slice object is accepted; interpreters before 3.14 do not know it (and never wrote one).
//! - Where the interpreter does not answer but crashes (a tuple that contains itself, as a member of
//!   a set or among a code object's constants) the stream is rejected.
//! - The interpreter also fails for want of memory; the reader makes no objects.
//!
//! A stream's bytecode is not verified, by the interpreter neither: a stream that unmarshals may still
//! hold code that crashes when it is run. Only the entry's digest can tell that it is what was written.
//!
//! Memory: at most 24 bytes for a byte of the stream (12 for each object that can be referred to,
//! which takes two bytes or more, in a vector that doubles), and at most 2000 frames of some 200 bytes,
//! on the heap. Checking does not recurse; a description follows functions 32 deep and containers 6
//! deep, which a stack of 256 KiB holds with ease.

mod code;
mod describe;
mod error;
mod machine;
mod origin;
mod repr;
mod token;

pub use describe::{CodeInfo, describe};
pub use error::{CodeFault, MarshalError, MarshalErrorKind};
use machine::Machine;
pub use origin::{MAX_LEN, Origin, origin};

/// What [`check_any`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// The object is a code object.
    pub is_code: bool,
    /// Bytes of the stream that belong to the object. The interpreter ignores what follows, and so
    /// does the check.
    pub len: usize,
}

/// Whether the stream unmarshals to a code object.
///
/// # Errors
/// It does not unmarshal, or to something else; the first fault and its offset.
pub fn check(data: &[u8]) -> Result<(), MarshalError> {
    if check_any(data)?.is_code {
        return Ok(());
    }
    Err(MarshalError {
        offset: 0,
        kind: MarshalErrorKind::NotCode,
    })
}

/// Whether the stream unmarshals to any object, as `marshal.loads` would.
///
/// # Errors
/// It does not; the first fault and its offset.
pub fn check_any(data: &[u8]) -> Result<Checked, MarshalError> {
    let outcome = Machine::new(data, ()).run()?;
    Ok(Checked {
        is_code: outcome.is_code,
        len: outcome.len,
    })
}

#[cfg(test)]
mod tests;
