//! How an entry frames its sections: legacy, v2, v3 and v4, both ways.
//!
//! | format | bytes |
//! |---|---|
//! | legacy | a marshal stream and nothing else (its first byte is `0xe3` or `0x63`) |
//! | v2 | `00 4b 44 41`, code length, marshal(code), then optionally pickle(ast) to the end |
//! | v3 | `01 4b 44 41`, code length, marshal(code), precomputed length (0: none), pickle(precomputed), optionally pickle(ast) |
//! | v4 | `02 4b 44 41`, as v3, then warnings length (never 0), a JSON list of warnings, optionally pickle(ast) |
//!
//! All lengths are unsigned 32-bit little-endian. The content of the sections is not looked at.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

/// How an entry is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A marshal stream alone; kida before 0.3.2.
    Legacy,
    /// Code and AST; kida from 0.3.2, and later releases for an entry without precomputed values.
    V2,
    /// With precomputed values; kida from 0.4.1.
    V3,
    /// With compiler warnings; newer engines.
    V4,
}

impl Format {
    /// How many of an entry's first bytes [`of_head`](Self::of_head) looks at.
    pub const HEAD_LEN: usize = 4;

    /// The format that an entry's first bytes name; `None` where they belong to no known one, or
    /// end too early to tell.
    pub fn of_head(head: &[u8]) -> Option<Self> {
        match head {
            _ if is_unknown_format(head) => None,
            [0xe3 | 0x63, ..] => Some(Self::Legacy),
            [0, tail @ ..] if tail.starts_with(MAGIC_TAIL) => Some(Self::V2),
            [1, tail @ ..] if tail.starts_with(MAGIC_TAIL) => Some(Self::V3),
            [2, tail @ ..] if tail.starts_with(MAGIC_TAIL) => Some(Self::V4),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy => "legacy",
            Self::V2 => "v2",
            Self::V3 => "v3",
            Self::V4 => "v4",
        })
    }
}

/// A part of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// The first four bytes, which name the format.
    Magic,
    /// The marshal stream.
    Code,
    /// The pickled list of precomputed values.
    Precomputed,
    /// The JSON list of compiler warnings.
    Warnings,
    /// The pickled syntax tree.
    Ast,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Magic => "magic",
            Self::Code => "code",
            Self::Precomputed => "precomputed",
            Self::Warnings => "warnings",
            Self::Ast => "AST",
        })
    }
}

/// An entry's sections. They borrow from the bytes that were parsed, or from whoever wants them encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// How they are framed.
    pub format: Format,
    /// The marshal stream.
    pub code: &'a [u8],
    /// The pickled precomputed values, never empty; v3 and v4 only.
    pub precomputed: Option<&'a [u8]>,
    /// The JSON list of warnings, never empty; always there in v4, and only there.
    pub warnings: Option<&'a [u8]>,
    /// The pickled syntax tree, never empty; not in legacy entries.
    pub ast: Option<&'a [u8]>,
}

/// Why bytes are not an entry, or sections cannot become one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// There are no bytes.
    #[error("the entry is empty")]
    Empty,
    /// The first bytes belong to no known format.
    #[error(
        "the entry begins with {0:#04x}, which is neither a marshalled code object nor a known magic number"
    )]
    UnknownMagic(u8),
    /// kida's mark with a format number that this release does not know. A later engine wrote the
    /// entry, which is no fault of its: it is to be kept, and nothing but its digest can be checked.
    #[error(
        "the entry is in format number {0}, which a later engine writes; this release knows 0 to 2"
    )]
    UnknownFormat(u8),
    /// The bytes end within a section or within its length.
    #[error(
        "the {section} section is truncated: at offset {offset} it needs {needed} bytes, and {available} are there"
    )]
    Truncated {
        /// The section.
        section: Section,
        /// Where the missing bytes begin to be needed, counted from the start of the entry.
        offset: usize,
        /// How many are needed there.
        needed: usize,
        /// How many are there.
        available: usize,
    },
    /// A v4 entry has no warnings section. An entry without warnings has an empty list there.
    #[error("the warnings section at offset {offset} is empty")]
    NoWarnings {
        /// Where its length is.
        offset: usize,
    },
    /// A section is too long for its 32-bit length.
    #[error("the {section} section has {len} bytes, and its length field ends at 4294967295")]
    TooLong {
        /// The section.
        section: Section,
        /// Its length in bytes.
        len: usize,
    },
    /// The format has no place for a section, or lacks one that it must have.
    #[error("the {section} section does not fit the {format} format")]
    Misplaced {
        /// The section.
        section: Section,
        /// The format.
        format: Format,
    },
}

const MAGIC_TAIL: &[u8; 3] = b"KDA";

/// Whether an entry's first bytes carry kida's mark with a format number that this release does not
/// know, as an entry of a later engine would. (`63` and `e3` are numbers here and not the type code
/// of a code object, which would have four million arguments.)
pub fn is_unknown_format(head: &[u8]) -> bool {
    matches!(head, [3..=u8::MAX, tail @ ..] if tail.starts_with(MAGIC_TAIL))
}

impl<'a> Entry<'a> {
    /// Splits an entry into its sections without copying.
    ///
    /// # Errors
    /// The bytes are not framed as any known format says; the error names the section and the offset.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let format = match (Format::of_head(bytes), bytes) {
            (Some(Format::Legacy), _) => {
                return Ok(Self {
                    format: Format::Legacy,
                    code: bytes,
                    precomputed: None,
                    warnings: None,
                    ast: None,
                });
            }
            (Some(format), _) => format,
            (None, []) => return Err(FrameError::Empty),
            (None, [0..=2, tail @ ..]) if MAGIC_TAIL.starts_with(tail) => {
                return Err(FrameError::Truncated {
                    section: Section::Magic,
                    offset: 0,
                    needed: Format::HEAD_LEN,
                    available: bytes.len(),
                });
            }
            (None, [number, ..]) if is_unknown_format(bytes) => {
                return Err(FrameError::UnknownFormat(*number));
            }
            (None, [first, ..]) => return Err(FrameError::UnknownMagic(*first)),
        };

        let mut at = Format::HEAD_LEN;
        let code = take_sized(bytes, &mut at, Section::Code)?;
        let mut precomputed = None;
        let mut warnings = None;
        if format >= Format::V3 {
            precomputed = some_unless_empty(take_sized(bytes, &mut at, Section::Precomputed)?);
        }
        if format == Format::V4 {
            let offset = at;
            warnings = some_unless_empty(take_sized(bytes, &mut at, Section::Warnings)?);
            if warnings.is_none() {
                return Err(FrameError::NoWarnings { offset });
            }
        }
        Ok(Self {
            format,
            code,
            precomputed,
            warnings,
            ast: some_unless_empty(&bytes[at..]),
        })
    }

    /// The entry's bytes; what [`Entry::parse`] splits again into the same sections.
    ///
    /// # Errors
    /// A section is longer than 32 bits can say, or does not fit the format: a legacy entry with
    /// anything but code that begins as a marshalled code object does, a v2 entry with precomputed
    /// values, warnings anywhere but in v4, a v4 entry without them, an empty section.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        self.check_places()?;
        let parts = [Some(self.code), self.precomputed, self.warnings, self.ast];
        let total: usize = parts.iter().flatten().map(|part| part.len()).sum();
        let mut bytes = Vec::with_capacity(16 + total);
        match self.format {
            Format::Legacy => bytes.extend_from_slice(self.code),
            Format::V2 => {
                put_magic(&mut bytes, 0);
                put_sized(&mut bytes, Section::Code, self.code)?;
            }
            Format::V3 | Format::V4 => {
                put_magic(&mut bytes, if self.format == Format::V3 { 1 } else { 2 });
                put_sized(&mut bytes, Section::Code, self.code)?;
                let precomputed = self.precomputed.unwrap_or_default();
                put_sized(&mut bytes, Section::Precomputed, precomputed)?;
                if let Some(warnings) = self.warnings {
                    put_sized(&mut bytes, Section::Warnings, warnings)?;
                }
            }
        }
        bytes.extend_from_slice(self.ast.unwrap_or_default());
        Ok(bytes)
    }

    fn check_places(&self) -> Result<(), FrameError> {
        let legacy = self.format == Format::Legacy;
        let is_code = matches!(self.code.first(), Some(0xe3 | 0x63));
        let wrong = |section, part: Option<&[u8]>, fits: bool| {
            let fits = part.is_none_or(|part| fits && !part.is_empty());
            (!fits).then_some(section)
        };
        let misplaced =
            (legacy && !is_code)
                .then_some(Section::Code)
                .or(wrong(
                    Section::Precomputed,
                    self.precomputed,
                    self.format >= Format::V3,
                ))
                .or(wrong(
                    Section::Warnings,
                    self.warnings,
                    self.format == Format::V4,
                ))
                .or(wrong(Section::Ast, self.ast, !legacy))
                .or((self.format == Format::V4 && self.warnings.is_none())
                    .then_some(Section::Warnings));
        match misplaced {
            Some(section) => Err(FrameError::Misplaced {
                section,
                format: self.format,
            }),
            None => Ok(()),
        }
    }
}

fn take_sized<'a>(
    bytes: &'a [u8],
    at: &mut usize,
    section: Section,
) -> Result<&'a [u8], FrameError> {
    let rest = &bytes[*at..];
    let truncated = |offset, needed, available| FrameError::Truncated {
        section,
        offset,
        needed,
        available,
    };
    let (len, rest) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| truncated(*at, 4, rest.len()))?;
    let len = u32::from_le_bytes(*len) as usize;
    let part = rest
        .get(..len)
        .ok_or_else(|| truncated(*at + 4, len, rest.len()))?;
    *at += 4 + len;
    Ok(part)
}

fn put_magic(bytes: &mut Vec<u8>, first: u8) {
    bytes.push(first);
    bytes.extend_from_slice(MAGIC_TAIL);
}

fn put_sized(bytes: &mut Vec<u8>, section: Section, part: &[u8]) -> Result<(), FrameError> {
    let len = len_field(section, part.len())?;
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(part);
    Ok(())
}

fn len_field(section: Section, len: usize) -> Result<u32, FrameError> {
    u32::try_from(len).map_err(|_| FrameError::TooLong { section, len })
}

fn some_unless_empty(part: &[u8]) -> Option<&[u8]> {
    (!part.is_empty()).then_some(part)
}

#[cfg(test)]
mod tests;
