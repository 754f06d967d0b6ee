//! The reader: takes objects off the stream as the interpreter does, and keeps of each no more than
//! what later decisions need.

use super::code::{Field, Fields};
use super::error::{MarshalError, MarshalErrorKind as Kind};
use super::token::{Cursor, Token};

/// Objects within objects that the interpreter takes (`MAX_MARSHAL_STACK_DEPTH` in CPython's
/// `Python/marshal.c` on every system but Windows; 3.11 to 3.14).
pub(super) const MAX_DEPTH: usize = 2000;

/// What is kept of an object: 12 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// 'No object'.
    Null,
    Str,
    Bytes {
        at: u32,
        len: u32,
    },
    Tuple {
        len: u32,
        /// All members are strings.
        strings: bool,
        hashable: bool,
        /// It contains, by way of tuples only, a tuple that was not complete then: itself. Following
        /// its members never ends; the interpreter overflows its stack.
        open: bool,
    },
    Code {
        hashable: bool,
    },
    Slice {
        hashable: bool,
    },
    /// A number, a singleton or a frozen set.
    Hashable,
    /// A list, a dictionary or a set, complete or not.
    Unhashable,
    /// A tuple that is being read. The interpreter lets it be referred to.
    IncompleteTuple,
    /// A code object, a slice or a frozen set that is being read. It must not be referred to.
    Reserved,
}

impl Value {
    fn is_hashable(self) -> bool {
        match self {
            Self::Str | Self::Bytes { .. } | Self::Hashable => true,
            Self::Tuple { hashable, .. } | Self::Code { hashable } | Self::Slice { hashable } => {
                hashable
            }
            Self::Null | Self::Unhashable | Self::IncompleteTuple | Self::Reserved => false,
        }
    }
}

/// Hears of each object of the stream.
pub(super) trait Observer {
    /// An object begins at this offset. `referable`: it takes the next reference number.
    fn enter(&mut self, at: usize, referable: bool);
    /// The object that was entered last and not left yet is complete.
    fn leave(&mut self);
}

/// Hears nothing.
impl Observer for () {
    fn enter(&mut self, _: usize, _: bool) {}
    fn leave(&mut self) {}
}

/// An object whose members are being read.
struct Frame {
    members: Members,
    /// Its place among the objects that can be referred to.
    slot: Option<usize>,
}

// The module's promise about memory counts on these.
const _: () = assert!(size_of::<Value>() == 12 && size_of::<Frame>() <= 200);

enum Members {
    Tuple {
        len: u32,
        left: u32,
        strings: bool,
        hashable: bool,
        open: bool,
    },
    List {
        left: u32,
    },
    Set {
        left: u32,
        frozen: bool,
    },
    Dict {
        /// The key whose value comes next.
        key: Option<Value>,
    },
    Slice {
        left: u8,
        hashable: bool,
    },
    Code(Fields),
}

/// A complete object, or one whose members come next.
enum Read {
    Complete(Value),
    Open(Members),
}

/// The reader's state. `refs` has 12 bytes for each object that can be referred to, and such an object
/// takes two bytes of the stream at least; `stack` has at most [`MAX_DEPTH`] frames.
pub(super) struct Machine<'a, O> {
    data: &'a [u8],
    cursor: Cursor<'a>,
    refs: Vec<Value>,
    stack: Vec<Frame>,
    observer: O,
}

/// What the stream's one object was.
pub(super) struct Outcome<O> {
    pub(super) is_code: bool,
    /// The stream's bytes that belong to it; the interpreter ignores what follows.
    pub(super) len: usize,
    pub(super) observer: O,
}

impl<'a, O: Observer> Machine<'a, O> {
    pub(super) fn new(data: &'a [u8], observer: O) -> Self {
        Self {
            data,
            cursor: Cursor::new(data, 0),
            refs: Vec::new(),
            stack: Vec::new(),
            observer,
        }
    }

    pub(super) fn run(mut self) -> Result<Outcome<O>, MarshalError> {
        // Offsets are kept in 32 bits.
        if u32::try_from(self.data.len()).is_err() {
            return self.cursor.fail(Kind::TooLong);
        }
        loop {
            let Some(mut value) = self.next()? else {
                continue;
            };
            loop {
                self.observer.leave();
                let Some(frame) = self.stack.last_mut() else {
                    if value == Value::Null {
                        return self.cursor.fail(Kind::Null);
                    }
                    return Ok(Outcome {
                        is_code: matches!(value, Value::Code { .. }),
                        len: self.cursor.at(),
                        observer: self.observer,
                    });
                };
                match frame.members.put(value, self.data, &mut self.cursor)? {
                    None => break,
                    Some(whole) => {
                        if let Some(slot) = frame.slot
                            && whole != Value::Null
                        {
                            self.refs[slot] = whole;
                        }
                        self.stack.pop();
                        value = whole;
                    }
                }
            }
        }
    }

    /// Reads an object; `None` if its members come first.
    fn next(&mut self) -> Result<Option<Value>, MarshalError> {
        let start = self.cursor;
        let (token, referable) = self.cursor.token()?;
        if self.stack.len() >= MAX_DEPTH {
            return start.fail(Kind::TooDeep);
        }
        self.observer.enter(start.at(), referable);
        let read = self.read(token, start)?;
        let slot = referable.then(|| {
            self.refs.push(match &read {
                Read::Complete(value) => *value,
                Read::Open(members) => members.until_complete(),
            });
            self.refs.len() - 1
        });
        match read {
            Read::Complete(value) => Ok(Some(value)),
            Read::Open(members) => {
                self.stack.push(Frame { members, slot });
                Ok(None)
            }
        }
    }

    fn read(&self, token: Token<'_>, start: Cursor<'_>) -> Result<Read, MarshalError> {
        Ok(match token {
            Token::Null => Read::Complete(Value::Null),
            Token::None
            | Token::False
            | Token::True
            | Token::StopIteration
            | Token::Ellipsis
            | Token::Int(_)
            | Token::Long { .. }
            | Token::Float(_)
            | Token::Complex(..)
            | Token::FrozenSet(0) => Read::Complete(Value::Hashable),
            Token::Utf8(_) | Token::Latin1(_) => Read::Complete(Value::Str),
            Token::Bytes(bytes) => Read::Complete(Value::Bytes {
                // Both fit: the stream is shorter than 4 GiB.
                at: (self.cursor.at() - bytes.len()) as u32,
                len: bytes.len() as u32,
            }),
            Token::Tuple(0) => Read::Complete(Value::Tuple {
                len: 0,
                strings: true,
                hashable: true,
                open: false,
            }),
            Token::Tuple(len) => Read::Open(Members::Tuple {
                len,
                left: len,
                strings: true,
                hashable: true,
                open: false,
            }),
            Token::List(0) | Token::Set(0) => Read::Complete(Value::Unhashable),
            Token::List(left) => Read::Open(Members::List { left }),
            Token::Set(left) => Read::Open(Members::Set {
                left,
                frozen: false,
            }),
            Token::FrozenSet(left) => Read::Open(Members::Set { left, frozen: true }),
            Token::Dict => Read::Open(Members::Dict { key: None }),
            Token::Slice => Read::Open(Members::Slice {
                left: 3,
                hashable: true,
            }),
            Token::Code(counts) => Read::Open(Members::Code(Fields::new(counts))),
            Token::Ref(number) => {
                let target = usize::try_from(number)
                    .ok()
                    .and_then(|index| self.refs.get(index));
                match target {
                    None | Some(Value::Reserved) => return start.fail(Kind::Reference(number)),
                    Some(value) => Read::Complete(*value),
                }
            }
        })
    }
}

impl Members {
    /// What a reference to the object finds while its members are being read.
    fn until_complete(&self) -> Value {
        match self {
            Self::Tuple { .. } => Value::IncompleteTuple,
            Self::List { .. } | Self::Dict { .. } | Self::Set { frozen: false, .. } => {
                Value::Unhashable
            }
            Self::Set { frozen: true, .. } | Self::Slice { .. } | Self::Code(_) => Value::Reserved,
        }
    }

    /// Puts the next member in; `Some` when the object is complete with it.
    fn put(
        &mut self,
        value: Value,
        data: &[u8],
        cursor: &mut Cursor<'_>,
    ) -> Result<Option<Value>, MarshalError> {
        if value == Value::Null {
            return match self {
                // A missing key ends a dictionary, and so does a missing value.
                Self::Dict { .. } => Ok(Some(Value::Unhashable)),
                // The interpreter (3.14) passes the absence on, without an error.
                Self::Slice { .. } => Ok(Some(Value::Null)),
                _ => cursor.fail(Kind::Null),
            };
        }
        let whole = match self {
            Self::Tuple {
                len,
                left,
                strings,
                hashable,
                open,
            } => {
                *left -= 1;
                *strings &= value == Value::Str;
                *hashable &= value.is_hashable();
                *open |= matches!(
                    value,
                    Value::IncompleteTuple | Value::Tuple { open: true, .. }
                );
                (*left == 0).then_some(Value::Tuple {
                    len: *len,
                    strings: *strings,
                    hashable: *hashable,
                    open: *open,
                })
            }
            Self::List { left } => {
                *left -= 1;
                (*left == 0).then_some(Value::Unhashable)
            }
            Self::Set { left, frozen } => {
                must_be_hashable(value, cursor)?;
                *left -= 1;
                let whole = if *frozen {
                    Value::Hashable
                } else {
                    Value::Unhashable
                };
                (*left == 0).then_some(whole)
            }
            // The interpreter hashes a key when it has its value.
            Self::Dict { key } => {
                match key.take() {
                    None => *key = Some(value),
                    Some(key) => must_be_hashable(key, cursor)?,
                }
                None
            }
            Self::Slice { left, hashable } => {
                *left -= 1;
                *hashable &= value.is_hashable();
                (*left == 0).then_some(Value::Slice {
                    hashable: *hashable,
                })
            }
            Self::Code(fields) => {
                if fields.put(value) == Field::BEFORE_FIRST_LINE {
                    cursor.int()?;
                }
                if !fields.is_full() {
                    None
                } else {
                    match fields.validate(data) {
                        Ok(code) => Some(code),
                        Err(fault) => return cursor.fail(Kind::Code(fault)),
                    }
                }
            }
        };
        Ok(whole)
    }
}

fn must_be_hashable(value: Value, cursor: &Cursor<'_>) -> Result<(), MarshalError> {
    match value {
        Value::IncompleteTuple | Value::Tuple { open: true, .. } => {
            cursor.fail(Kind::IncompleteTuple)
        }
        value if value.is_hashable() => Ok(()),
        _ => cursor.fail(Kind::Unhashable),
    }
}
