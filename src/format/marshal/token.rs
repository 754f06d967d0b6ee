//! The stream's smallest parts: type codes with what follows them directly.

use super::error::{MarshalError, MarshalErrorKind as Kind};
use crate::format::utf8::bad_utf8;

/// The bit of a type code that says: this object can be referred to later.
const FLAG_REF: u8 = 0x80;

/// One object, or the head of one that contains others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'a> {
    /// 'No object': ends a dictionary.
    Null,
    None,
    False,
    True,
    StopIteration,
    Ellipsis,
    Int(i64),
    /// Little-endian digits of 15 bits, two bytes each.
    Long {
        negative: bool,
        digits: &'a [u8],
    },
    Float(f64),
    Complex(f64, f64),
    Bytes(&'a [u8]),
    /// UTF-8 in which lone surrogates may stand.
    Utf8(&'a [u8]),
    /// One byte a character.
    Latin1(&'a [u8]),
    Tuple(u32),
    List(u32),
    Set(u32),
    FrozenSet(u32),
    Dict,
    Slice,
    Code(Counts),
    Ref(i32),
}

/// The numbers at the start of a code object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) args: i32,
    pub(super) positional_only: i32,
    pub(super) keyword_only: i32,
    pub(super) stack: i32,
    pub(super) flags: i32,
}

/// A place in the stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
}

type Result<T> = std::result::Result<T, MarshalError>;

impl<'a> Cursor<'a> {
    /// `at` must be within `data`, or at its end.
    pub(super) fn new(data: &'a [u8], at: usize) -> Self {
        Self { data, at }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn fail<T>(&self, kind: Kind) -> Result<T> {
        Err(MarshalError {
            offset: self.at,
            kind,
        })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        match self.data[self.at..].get(..len) {
            Some(part) => {
                self.at += len;
                Ok(part)
            }
            None => self.fail(Kind::Truncated),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.data[self.at..].first_chunk() {
            Some(part) => {
                self.at += N;
                Ok(*part)
            }
            None => self.fail(Kind::Truncated),
        }
    }

    fn byte(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    /// A signed 32-bit number.
    pub(super) fn int(&mut self) -> Result<i32> {
        self.array().map(i32::from_le_bytes)
    }

    /// A length that must not be negative.
    fn length(&mut self) -> Result<u32> {
        let len = self.int()?;
        match u32::try_from(len) {
            Ok(len) => Ok(len),
            Err(_) => self.fail(Kind::Length(len)),
        }
    }

    fn sized(&mut self) -> Result<&'a [u8]> {
        let len = self.length()?;
        self.take(len as usize)
    }

    /// Reads one object, or the head of one that contains others, and whether it may be referred to.
    pub(super) fn token(&mut self) -> Result<(Token<'a>, bool)> {
        let start = self.at;
        let code = self.byte()?;
        let token = match code & !FLAG_REF {
            b'0' => Token::Null,
            b'N' => Token::None,
            b'F' => Token::False,
            b'T' => Token::True,
            b'S' => Token::StopIteration,
            b'.' => Token::Ellipsis,
            b'i' => Token::Int(self.int()?.into()),
            b'I' => Token::Int(i64::from_le_bytes(self.array()?)),
            b'l' => self.long()?,
            b'f' => Token::Float(self.text_float()?),
            b'g' => Token::Float(self.float()?),
            b'x' => Token::Complex(self.text_float()?, self.text_float()?),
            b'y' => Token::Complex(self.float()?, self.float()?),
            b's' => Token::Bytes(self.sized()?),
            b't' | b'u' => self.utf8()?,
            // Despite its name ('ASCII') the interpreter takes any byte here.
            b'a' | b'A' => Token::Latin1(self.sized()?),
            b'z' | b'Z' => {
                let len = self.byte()?;
                Token::Latin1(self.take(len.into())?)
            }
            b')' => Token::Tuple(self.byte()?.into()),
            b'(' => Token::Tuple(self.length()?),
            b'[' => Token::List(self.length()?),
            b'<' => Token::Set(self.length()?),
            b'>' => Token::FrozenSet(self.length()?),
            b'{' => Token::Dict,
            b':' => Token::Slice,
            b'c' => Token::Code(Counts {
                args: self.int()?,
                positional_only: self.int()?,
                keyword_only: self.int()?,
                stack: self.int()?,
                flags: self.int()?,
            }),
            b'r' => Token::Ref(self.int()?),
            _ => {
                self.at = start;
                return self.fail(Kind::UnknownType(code));
            }
        };
        Ok((token, code & FLAG_REF != 0 && token.can_be_referred_to()))
    }

    fn long(&mut self) -> Result<Token<'a>> {
        let len = self.int()?;
        if len == i32::MIN {
            return self.fail(Kind::Length(len));
        }
        let start = self.at;
        let digits = self.take(2 * len.unsigned_abs() as usize)?;
        let (pairs, _) = digits.as_chunks::<2>();
        if let Some(bad) = pairs.iter().position(|[_, high]| *high >= 0x80) {
            self.at = start + 2 * bad;
            return self.fail(Kind::Digit);
        }
        if pairs.last() == Some(&[0, 0]) {
            return self.fail(Kind::Unnormalized);
        }
        Ok(Token::Long {
            negative: len < 0,
            digits,
        })
    }

    fn float(&mut self) -> Result<f64> {
        self.array().map(f64::from_le_bytes)
    }

    /// A number as text. The interpreter reads it as a C string, so it ends at a NUL; its grammar is
    /// that of Rust's own parser (digits, point, exponent; `inf`, `infinity` and `nan` in any case).
    fn text_float(&mut self) -> Result<f64> {
        let start = self.at;
        let len = self.byte()?;
        let text = self.take(len.into())?;
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        let number = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok());
        match number {
            Some(number) => Ok(number),
            None => {
                self.at = start;
                self.fail(Kind::Float)
            }
        }
    }

    fn utf8(&mut self) -> Result<Token<'a>> {
        let text = self.sized()?;
        match bad_utf8(text) {
            None => Ok(Token::Utf8(text)),
            Some(bad) => {
                self.at -= text.len() - bad;
                self.fail(Kind::Utf8)
            }
        }
    }
}

impl Token<'_> {
    /// The interpreter ignores the flag on its singletons and on references.
    fn can_be_referred_to(&self) -> bool {
        !matches!(
            self,
            Self::Null
                | Self::None
                | Self::False
                | Self::True
                | Self::StopIteration
                | Self::Ellipsis
                | Self::Ref(_)
        )
    }
}
