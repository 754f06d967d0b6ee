//! The pattern of an entry's file name, both ways.

use std::ffi::OsStr;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::name::{EntryName, HASH_LEN, NameError, flat_name, hash_key};
use super::version::{VersionTag, prefix_lens, suffix_lens};

/// The engine's own pattern.
const DEFAULT: &str = "__kida_{version}_{name}_{hash}.pyc";

/// What stands for a placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Version,
    Name,
    Hash,
}

const PLACEHOLDERS: [(&str, Field); 3] = [
    ("{version}", Field::Version),
    ("{name}", Field::Name),
    ("{hash}", Field::Hash),
];

/// A file name with the placeholders `{version}`, `{name}` and `{hash}`, each once and in any order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// What stands before, between and after the placeholders.
    literals: [String; 4],
    fields: [Field; 3],
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    /// A placeholder is missing.
    #[error(
        "the pattern '{pattern}' has no {missing}; it needs {{version}}, {{name}} and {{hash}}, each once"
    )]
    Missing {
        /// The pattern.
        pattern: String,
        /// The placeholder.
        missing: &'static str,
    },
    /// A placeholder stands twice.
    #[error("the pattern '{pattern}' has {repeated} more than once; keep one of them")]
    Repeated {
        /// The pattern.
        pattern: String,
        /// The placeholder.
        repeated: &'static str,
    },
    /// A brace belongs to no placeholder. The engine would take `{{` for a literal brace and `{name!r}`
    /// for a conversion; neither can be read back.
    #[error("the pattern '{0}' has a brace outside {{version}}, {{name}} and {{hash}}; remove it")]
    Brace(String),
    /// A `/` or a NUL, which a file name cannot have.
    #[error("the pattern '{0}' has a '/' or a NUL; it is the name of a file, not a path")]
    NotAName(String),
}

impl Default for Pattern {
    fn default() -> Self {
        Self {
            text: DEFAULT.to_owned(),
            literals: ["__kida_", "_", "_", ".pyc"].map(str::to_owned),
            fields: [Field::Version, Field::Name, Field::Hash],
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains(['/', '\0']) {
            return Err(PatternError::NotAName(text.to_owned()));
        }
        let mut found = Vec::with_capacity(PLACEHOLDERS.len());
        for (placeholder, field) in PLACEHOLDERS {
            let mut places = text.match_indices(placeholder);
            let Some((at, _)) = places.next() else {
                return Err(PatternError::Missing {
                    pattern: text.to_owned(),
                    missing: placeholder,
                });
            };
            if places.next().is_some() {
                return Err(PatternError::Repeated {
                    pattern: text.to_owned(),
                    repeated: placeholder,
                });
            }
            found.push((at, placeholder.len(), field));
        }
        found.sort_by_key(|&(at, _, _)| at);

        let mut literals: [String; 4] = Default::default();
        let mut fields = [Field::Name; 3];
        let mut end = 0;
        for (i, (at, len, field)) in found.into_iter().enumerate() {
            literals[i] = text[end..at].to_owned();
            fields[i] = field;
            end = at + len;
        }
        literals[3] = text[end..].to_owned();
        if literals.iter().any(|literal| literal.contains(['{', '}'])) {
            return Err(PatternError::Brace(text.to_owned()));
        }
        Ok(Self {
            text: text.to_owned(),
            literals,
            fields,
        })
    }
}

impl Pattern {
    /// What every name of the pattern begins with; may be empty.
    pub fn prefix(&self) -> &str {
        &self.literals[0]
    }

    /// What every name of the pattern ends with; may be empty.
    pub fn suffix(&self) -> &str {
        &self.literals[3]
    }

    /// The file name of an entry, as the engine makes it (kida's `BytecodeCache._make_path`). It may
    /// be longer than a filesystem takes; such a template is simply not cached.
    ///
    /// # Errors
    /// A part of the template's name is `..`, or a hash contains a `/`.
    pub fn file_name(
        &self,
        version: &VersionTag,
        name: &str,
        source_hash: &str,
        context_hash: Option<&str>,
    ) -> Result<String, NameError> {
        let name = flat_name(name)?;
        let hash = hash_key(source_hash, context_hash)?;
        let mut text = self.literals[0].clone();
        for (field, literal) in self.fields.iter().zip(&self.literals[1..]) {
            text.push_str(match field {
                Field::Version => version.as_str(),
                Field::Name => &name,
                Field::Hash => &hash,
            });
            text.push_str(literal);
        }
        Ok(text)
    }

    /// The parts of an entry's file name; `None` if it is not of this pattern or not UTF-8.
    ///
    /// The version, the name and the hash may all contain `_`, so a name is read from both ends, and
    /// what is left between them is the template's. Where more than one reading is possible the
    /// choice is this, and a reader must take the result for a hint:
    ///
    /// - A known ABI tag is read as such, though a template may be called `kida1_ast2_x`.
    ///   An unknown one (`py314_other`) is read as `py314` and a name that begins with `other_`.
    /// - `…_<16 hex>_<1 to 16 hex>` is a source hash and a context hash, though the template's name
    ///   may end with 16 hex digits. Any other end of 16 or fewer hex digits is a source hash alone,
    ///   so a source hash of fewer than 16 digits with a context hash is read as part of the name.
    pub fn parse_name<'a>(&self, file_name: &'a OsStr) -> Option<EntryName<'a>> {
        let middle = file_name
            .to_str()?
            .strip_prefix(self.prefix())?
            .strip_suffix(self.suffix())?;
        let [_, after_first, after_second, _] = &self.literals;
        let (first, second) = (after_first.as_str(), after_second.as_str());
        let [a, b, c] = self.fields;
        let read = match (a, b, c) {
            (_, Field::Name, _) => leads(a, middle).find_map(|(left, rest)| {
                let rest = rest.strip_prefix(first)?;
                trails(c, rest).find_map(|(right, rest)| {
                    Some([(a, left), (c, right), (b, rest.strip_suffix(second)?)])
                })
            }),
            (Field::Name, _, _) => trails(c, middle).find_map(|(right, rest)| {
                let rest = rest.strip_suffix(second)?;
                trails(b, rest).find_map(|(left, rest)| {
                    Some([(b, left), (c, right), (a, rest.strip_suffix(first)?)])
                })
            }),
            (_, _, _) => leads(a, middle).find_map(|(left, rest)| {
                let rest = rest.strip_prefix(first)?;
                leads(b, rest).find_map(|(right, rest)| {
                    Some([(a, left), (b, right), (c, rest.strip_prefix(second)?)])
                })
            }),
        }?;
        let of = |wanted| read.iter().find(|(field, _)| *field == wanted);
        let (_, hash) = of(Field::Hash)?;
        let (source_hash, context_hash) = match hash.split_once('_') {
            Some((source, context)) => (source, Some(context)),
            None => (*hash, None),
        };
        Some(EntryName {
            version: of(Field::Version)?.1,
            name: of(Field::Name)?.1,
            source_hash,
            context_hash,
        })
    }
}

/// The ways to take `field` off the start of `text`, the preferred first: (taken, rest).
fn leads(field: Field, text: &str) -> Box<dyn Iterator<Item = (&str, &str)> + '_> {
    let split = move |len| text.split_at(len);
    match field {
        Field::Version => Box::new(prefix_lens(text).map(split)),
        Field::Hash => Box::new(hash_lens(text.bytes()).map(split)),
        Field::Name => Box::new(std::iter::empty()),
    }
}

/// The ways to take `field` off the end of `text`, the preferred first: (taken, rest).
fn trails(field: Field, text: &str) -> Box<dyn Iterator<Item = (&str, &str)> + '_> {
    let split = move |len| {
        let (rest, taken) = text.split_at(text.len() - len);
        (taken, rest)
    };
    match field {
        Field::Version => Box::new(suffix_lens(text).map(split)),
        Field::Hash => Box::new(hash_suffix_lens(text).map(split)),
        Field::Name => Box::new(std::iter::empty()),
    }
}

/// The lengths of the hash keys that `text` may begin with, the preferred first.
fn hash_lens(text: impl Iterator<Item = u8> + Clone) -> impl Iterator<Item = usize> {
    let source = hex_len(text.clone());
    let mut rest = text.skip(source);
    let context = if source == HASH_LEN && rest.next() == Some(b'_') {
        hex_len(rest)
    } else {
        0
    };
    let pairs = (1..=context).rev().map(|len| HASH_LEN + 1 + len);
    pairs.chain((1..=source).rev())
}

/// The lengths of the hash keys that `text` may end with, the preferred first.
fn hash_suffix_lens(text: &str) -> impl Iterator<Item = usize> {
    let last = hex_len(text.bytes().rev());
    let before = text.as_bytes()[..text.len() - last].strip_suffix(b"_");
    let is_pair =
        last > 0 && before.is_some_and(|rest| hex_len(rest.iter().rev().copied()) == HASH_LEN);
    let pair = is_pair.then_some(HASH_LEN + 1 + last);
    pair.into_iter().chain((1..=last).rev())
}

/// The length of the run of lower-case hex digits, at most that of a hash.
fn hex_len(bytes: impl Iterator<Item = u8>) -> usize {
    bytes
        .take(HASH_LEN)
        .take_while(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        .count()
}

#[cfg(test)]
mod tests;
