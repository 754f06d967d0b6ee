//! Pickles: whether one is whole, without loading it.
//!
//! Loading a pickle runs what it names, so it is never done here. [`check`] follows the opcodes of
//! protocols 0 to 5 and keeps count of the stack, the marks and the memo, which is enough to find a pickle
//! that was cut off, has bytes missing, or is not a pickle. It is weaker than `pickle.loads`: it
//! rejects nothing that loads, but it does not know whether the named classes exist, whether a call
//! would fail, or whether an object has the type that an opcode wants.
//!
//! The rules follow the unpickler of CPython's `Modules/_pickle.c` (3.14).

use std::collections::HashSet;

use thiserror::Error;

use super::utf8::bad_utf8;

/// Where and why a byte string is not a pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("at offset {offset}: {kind}")]
pub struct PickleError {
    /// The opcode at fault, or the byte at which more were expected; counted from the pickle's start.
    pub offset: usize,
    /// The fault.
    pub kind: PickleErrorKind,
}

/// What is wrong with a pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PickleErrorKind {
    /// It ends before its end opcode, or within an argument.
    #[error("the pickle is truncated")]
    Truncated,
    /// A byte that is not an opcode.
    #[error("unknown opcode {0:#04x}")]
    UnknownOpcode(u8),
    /// A protocol that no interpreter up to 3.14 knows.
    #[error("unsupported protocol {0}")]
    Protocol(u8),
    /// A negative length.
    #[error("a length is negative")]
    Length,
    /// A line of text that must not be empty is empty.
    #[error("an argument is empty")]
    EmptyLine,
    /// A string is not UTF-8 (lone surrogates are allowed, as in Python).
    #[error("a string is not UTF-8")]
    Utf8,
    /// An opcode takes more objects than there are since the last mark.
    #[error("an opcode lacks its operands")]
    Underflow,
    /// An opcode lacks its mark.
    #[error("an opcode lacks its mark")]
    NoMark,
    /// A dictionary's keys and values are an odd number.
    #[error("a dictionary has a key without a value")]
    OddItems,
    /// The memo has no such object.
    #[error("the memo has no object {0}")]
    Memo(u64),
    /// A persistent reference or an out-of-band buffer, which `pickle.loads` alone cannot resolve.
    #[error("it refers to objects outside of it")]
    External,
}

use PickleErrorKind as Kind;

/// Follows a pickle to its end opcode; returns its length in bytes. What follows is ignored, as by
/// `pickle.loads`.
///
/// Takes at most 64 bytes of memory for a byte of the pickle (a mark is 8 bytes, a memo key some 10, and
/// both are kept in containers that double), and time in proportion to its length.
///
/// # Errors
/// `pickle.loads` would fail on it: the first fault and its offset.
pub fn check(data: &[u8]) -> Result<usize, PickleError> {
    read(data).map(|whole| whole.len)
}

/// A whole pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// Its length in bytes.
    pub len: usize,
    /// What its object is.
    pub top: Top,
}

/// What a pickle's object is, as far as its opcodes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Top {
    /// A list, or an object that members are appended to as to one.
    List,
    /// Another plain value: a number, a text, a tuple, a dictionary, a set, a class by its name.
    Plain,
    /// What a class or a function makes.
    Object,
    /// It cannot be told: the object was fetched from the memo.
    Unknown,
}

/// As [`check`], and tells what the object is.
///
/// # Errors
/// As of [`check`].
pub fn read(data: &[u8]) -> Result<Whole, PickleError> {
    let mut scanner = Scanner {
        data,
        at: 0,
        stack: 0,
        bottom: Top::Unknown,
        marks: Vec::new(),
        memo: Memo::default(),
    };
    loop {
        let offset = scanner.at;
        match scanner.step() {
            Ok(true) => {
                // With more than one object left the last is the result.
                let top = if scanner.stack == 0 {
                    scanner.bottom
                } else {
                    Top::Unknown
                };
                return Ok(Whole {
                    len: scanner.at,
                    top,
                });
            }
            Ok(false) => {}
            Err(Kind::Truncated) => {
                return Err(PickleError {
                    offset: data.len(),
                    kind: Kind::Truncated,
                });
            }
            Err(kind) => return Err(PickleError { offset, kind }),
        }
    }
}

type Step<T = ()> = Result<T, PickleErrorKind>;

struct Scanner<'a> {
    data: &'a [u8],
    at: usize,
    /// Objects on the stack.
    stack: usize,
    /// What the lowest of them is.
    bottom: Top,
    /// The stack's height at each mark.
    marks: Vec<usize>,
    memo: Memo,
}

/// The objects that can be fetched again. Most pickles number them from 0 without a gap.
#[derive(Default)]
struct Memo {
    dense: u64,
    sparse: HashSet<u64>,
    /// A key was written in a way that this scanner does not read.
    unknown: bool,
}

impl Memo {
    fn len(&self) -> u64 {
        self.dense + self.sparse.len() as u64
    }

    fn put(&mut self, key: u64) {
        if key > self.dense {
            self.sparse.insert(key);
        } else if key == self.dense {
            self.dense += 1;
            while self.sparse.remove(&self.dense) {
                self.dense += 1;
            }
        }
    }

    fn get(&self, key: u64) -> Step {
        if key < self.dense || self.unknown || self.sparse.contains(&key) {
            Ok(())
        } else {
            Err(Kind::Memo(key))
        }
    }
}

impl<'a> Scanner<'a> {
    /// Follows one opcode; true if it was the end.
    fn step(&mut self) -> Step<bool> {
        let [opcode] = self.array()?;
        let is_end = self.follow(opcode)?;
        if self.stack == 1 {
            self.bottom = match opcode {
                b']' | b'l' => Top::List,
                b'a' | b'e' if self.bottom == Top::Object => Top::List,
                // They change or leave what is there.
                b'a' | b'e' | b'b' | b's' | b'u' | 0x90 | 0x94 | 0x95 | 0x98 | 0x80 | b'('
                | b'0' | b'1' | b'q' | b'r' | b'p' | b'.' => self.bottom,
                b'R' | 0x81 | 0x92 | b'o' | b'i' => Top::Object,
                b'g' | b'h' | b'j' | b'2' => Top::Unknown,
                _ => Top::Plain,
            };
        }
        Ok(is_end)
    }

    fn follow(&mut self, opcode: u8) -> Step<bool> {
        match opcode {
            b'.' => {
                self.pop(1)?;
                return Ok(true);
            }
            0x80 => {
                let [protocol] = self.array()?;
                if protocol > 5 {
                    return Err(Kind::Protocol(protocol));
                }
            }
            0x95 => {
                // A frame's bytes are followed like any others; they must only be there.
                let len = u64::from_le_bytes(self.array()?);
                if len > (self.data.len() - self.at) as u64 {
                    return Err(Kind::Truncated);
                }
            }
            b'(' => self.marks.push(self.stack),

            // Values without an argument.
            b'N' | 0x88 | 0x89 | b']' | b')' | b'}' | 0x8f => self.stack += 1,
            // Values of fixed length.
            b'K' => self.value(1)?,
            b'M' => self.value(2)?,
            b'J' => self.value(4)?,
            b'G' => self.value(8)?,
            0x82 => self.value(1)?,
            0x83 => self.value(2)?,
            0x84 => self.value(4)?,
            // Values with their length before them.
            0x8a | b'U' | b'C' => {
                let [len] = self.array()?;
                self.value(len.into())?;
            }
            b'B' => {
                let len = u32::from_le_bytes(self.array()?);
                self.value(len.into())?;
            }
            0x8b | b'T' => {
                let len = i32::from_le_bytes(self.array()?);
                self.value(u64::try_from(len).map_err(|_| Kind::Length)?)?;
            }
            0x8e | 0x96 => {
                let len = u64::from_le_bytes(self.array()?);
                self.value(len)?;
            }
            0x8c => {
                let [len] = self.array()?;
                self.text(len.into())?;
            }
            b'X' => {
                let len = u32::from_le_bytes(self.array()?);
                self.text(len.into())?;
            }
            0x8d => {
                let len = u64::from_le_bytes(self.array()?);
                self.text(len)?;
            }
            // Values on a line of their own.
            b'I' | b'L' | b'F' | b'S' => {
                self.full_line()?;
                self.stack += 1;
            }
            b'V' => {
                self.line()?;
                self.stack += 1;
            }
            b'c' => {
                self.full_line()?;
                self.full_line()?;
                self.stack += 1;
            }

            // What is made of objects on the stack.
            0x85 => self.replace(1)?,
            0x86 | 0x81 | 0x93 | b'R' => self.replace(2)?,
            0x87 | 0x92 => self.replace(3)?,
            b'l' | b't' | 0x91 => {
                self.pop_mark()?;
                self.stack += 1;
            }
            b'd' => {
                if !self.pop_mark()?.is_multiple_of(2) {
                    return Err(Kind::OddItems);
                }
                self.stack += 1;
            }
            b'i' => {
                self.pop_mark()?;
                self.full_line()?;
                self.full_line()?;
                self.stack += 1;
            }
            b'o' => {
                if self.pop_mark()? == 0 {
                    return Err(Kind::Underflow);
                }
                self.stack += 1;
            }
            // What is put into the object below.
            b'a' | b'b' => self.replace(2)?,
            b's' => self.replace(3)?,
            b'e' | 0x90 => {
                self.pop_mark()?;
                self.need(1)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.need(1)?;
                if !items.is_multiple_of(2) {
                    return Err(Kind::OddItems);
                }
            }
            0x98 => self.need(1)?,

            b'0' => {
                if self.marks.last() == Some(&self.stack) {
                    self.marks.pop();
                } else {
                    self.pop(1)?;
                }
            }
            b'1' => {
                self.pop_mark()?;
            }
            b'2' => {
                self.need(1)?;
                self.stack += 1;
            }

            b'q' => {
                let [key] = self.array()?;
                self.put(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.put(key.into())?;
            }
            b'p' => match decimal(self.full_line()?) {
                Some(key) => self.put(key)?,
                None => self.memo.unknown = true,
            },
            0x94 => self.put(self.memo.len())?,
            b'h' => {
                let [key] = self.array()?;
                self.get(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.get(key.into())?;
            }
            b'g' => match decimal(self.full_line()?) {
                Some(key) => self.get(key)?,
                None => self.stack += 1,
            },

            b'P' | b'Q' | 0x97 => return Err(Kind::External),
            other => return Err(Kind::UnknownOpcode(other)),
        }
        Ok(false)
    }

    fn take(&mut self, len: u64) -> Step<&'a [u8]> {
        let rest = &self.data[self.at..];
        let len = usize::try_from(len).map_err(|_| Kind::Truncated)?;
        let part = rest.get(..len).ok_or(Kind::Truncated)?;
        self.at += len;
        Ok(part)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let part = self.data[self.at..].first_chunk().ok_or(Kind::Truncated)?;
        self.at += N;
        Ok(*part)
    }

    /// A line without its end.
    fn line(&mut self) -> Step<&'a [u8]> {
        let rest = &self.data[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n');
        let len = len.ok_or(Kind::Truncated)?;
        self.at += len + 1;
        Ok(&rest[..len])
    }

    fn full_line(&mut self) -> Step<&'a [u8]> {
        let line = self.line()?;
        if line.is_empty() {
            return Err(Kind::EmptyLine);
        }
        Ok(line)
    }

    fn value(&mut self, len: u64) -> Step {
        self.take(len)?;
        self.stack += 1;
        Ok(())
    }

    fn text(&mut self, len: u64) -> Step {
        if bad_utf8(self.take(len)?).is_some() {
            return Err(Kind::Utf8);
        }
        self.stack += 1;
        Ok(())
    }

    /// Objects below the last mark are out of reach.
    fn need(&self, count: usize) -> Step {
        let fence = self.marks.last().copied().unwrap_or(0);
        if self.stack - fence < count {
            return Err(Kind::Underflow);
        }
        Ok(())
    }

    fn pop(&mut self, count: usize) -> Step {
        self.need(count)?;
        self.stack -= count;
        Ok(())
    }

    fn replace(&mut self, count: usize) -> Step {
        self.pop(count)?;
        self.stack += 1;
        Ok(())
    }

    /// Takes off the last mark and what is above it; returns how many objects that were.
    fn pop_mark(&mut self) -> Step<usize> {
        let mark = self.marks.pop().ok_or(Kind::NoMark)?;
        let count = self.stack - mark;
        self.stack = mark;
        Ok(count)
    }

    fn put(&mut self, key: u64) -> Step {
        self.need(1)?;
        self.memo.put(key);
        Ok(())
    }

    fn get(&mut self, key: u64) -> Step {
        self.memo.get(key)?;
        self.stack += 1;
        Ok(())
    }
}

/// A memo key in text form. Python also reads such as `1_0`, which nothing writes.
fn decimal(line: &[u8]) -> Option<u64> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
