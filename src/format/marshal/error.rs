//! Why a byte stream does not unmarshal.

use thiserror::Error;

/// Where and why a stream does not unmarshal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("at offset {offset}: {kind}")]
pub struct MarshalError {
    /// The byte at which the fault was noticed, counted from the stream's start.
    pub offset: usize,
    /// The fault.
    pub kind: MarshalErrorKind,
}

/// What is wrong with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MarshalErrorKind {
    /// It ends within an object.
    #[error("the stream ends within an object")]
    Truncated,
    /// It is longer than 4 GiB, which no entry can hold.
    #[error("the stream is longer than 4 GiB")]
    TooLong,
    /// A type code that no interpreter from 3.11 to 3.14 knows.
    #[error("unknown type code {0:#04x}")]
    UnknownType(u8),
    /// A negative length, or one of an integer's that is out of range.
    #[error("the length {0} is out of range")]
    Length(i32),
    /// More objects within each other than the interpreter takes.
    #[error("objects are nested more than 2000 deep")]
    TooDeep,
    /// A reference to an object that does not exist, or not yet.
    #[error("invalid reference {0}")]
    Reference(i32),
    /// A reference to a tuple from within itself, where the interpreter would crash.
    #[error("a tuple is used before it is complete")]
    IncompleteTuple,
    /// The marker for 'no object' where an object must be.
    #[error("no object where one must be")]
    Null,
    /// A digit of a long integer is not below 2^15.
    #[error("a digit of an integer is out of range")]
    Digit,
    /// A long integer whose highest digit is 0.
    #[error("an integer has a leading zero digit")]
    Unnormalized,
    /// A number in text form is not a number.
    #[error("a number in text form is malformed")]
    Float,
    /// A string is not UTF-8 (lone surrogates are allowed, as in Python).
    #[error("a string is not UTF-8")]
    Utf8,
    /// A set's member or a dictionary's key cannot be one, such as a list.
    #[error("an unhashable object is used as a key or as a member of a set")]
    Unhashable,
    /// A code object's field has the wrong type or a value that cannot be.
    #[error("a code object's {0}")]
    Code(CodeFault),
    /// The stream unmarshals, to something else than a code object.
    #[error("the object is not a code object")]
    NotCode,
}

/// What the interpreter refuses in a code object (`_PyCode_Validate` and `_PyCode_New` in CPython's
/// `Objects/codeobject.c`; the same checks in 3.11 to 3.14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CodeFault {
    /// An argument count, the stack size or the flags are negative, or more arguments are
    /// positional-only than there are.
    #[error("counts are negative or contradict each other")]
    Counts,
    /// The bytecode is not a byte string of even length.
    #[error("bytecode is not a byte string of even length")]
    Bytecode,
    /// The constants are not a tuple.
    #[error("constants are not a tuple")]
    Constants,
    /// The names are not a tuple of strings.
    #[error("names are not a tuple of strings")]
    Names,
    /// The locals are not a tuple of strings with a kind for each.
    #[error("locals are not a tuple of strings with a kind for each")]
    Locals,
    /// There are fewer locals than arguments.
    #[error("locals are fewer than its arguments")]
    TooFewLocals,
    /// The file name, the name or the qualified name is not a string.
    #[error("file name, name or qualified name is not a string")]
    Strings,
    /// The line table or the exception table is not a byte string.
    #[error("line table or exception table is not a byte string")]
    Tables,
}
