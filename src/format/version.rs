//! The `{version}` part of a file name.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// What an entry's code and pickles are bound to: the interpreter's tag (`py314`), or a longer ABI
/// tag that begins with it (`py314_kida0_12_0_ast2`).
///
/// Guarantees the form `py`, two digits or more, `t` for an interpreter without a global lock, and then nothing or `_` and letters, digits and
/// `_`. Engines before the first ABI tag used the interpreter's alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VersionTag(String);

/// A text that is not a version tag.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "'{0}' is not a version tag: write the interpreter's, such as py314, or the engine's, such as py314_kida0_12_0_ast2"
)]
pub struct VersionTagError(String);

impl VersionTag {
    /// The tag as it stands in file names.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The interpreter's part, such as `py314`. It is what the engine's
    /// `clear(current_version_only=True)` goes by.
    pub fn python(&self) -> &str {
        python_part(&self.0)
    }

    /// Whether [`marshal`](super::marshal) knows this interpreter's code objects: CPython 3.11 to 3.14.
    /// A stream of another one says nothing about its entry when it is rejected.
    pub fn is_readable(&self) -> bool {
        is_readable(self.python())
    }
}

impl VersionTag {
    /// Whether an engine with this tag keeps its compiler's warnings in its entries (`…_warn1`): it writes
    /// every entry in the v4 format, and takes no other for a hit.
    pub fn has_warnings(&self) -> bool {
        warn_of(&self.0).is_some()
    }
}

impl Default for VersionTag {
    /// `py314`: CPython 3.14, without an engine's ABI.
    fn default() -> Self {
        Self("py314".to_owned())
    }
}

impl FromStr for VersionTag {
    type Err = VersionTagError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = interpreter_len(text).map(|len| &text[len..]);
        let is_tag = match rest {
            Some("") => true,
            Some(rest) => rest.strip_prefix('_').is_some_and(|abi| {
                !abi.is_empty() && abi.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            }),
            None => false,
        };
        if is_tag {
            Ok(Self(text.to_owned()))
        } else {
            Err(VersionTagError(text.to_owned()))
        }
    }
}

impl fmt::Display for VersionTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The interpreter's part of a tag; all of `tag` when it has none.
pub(super) fn python_part(tag: &str) -> &str {
    &tag[..interpreter_len(tag).unwrap_or(tag.len())]
}

/// kida's own version in a tag, such as `0_12_0`; `None` before 0.9.0, which wrote none.
pub(super) fn kida_of(tag: &str) -> Option<&str> {
    let rest = &tag[interpreter_len(tag)?..];
    let abi = &rest[..abi_len(rest)?];
    Some(&abi[LEAD.len()..abi.rfind("_ast")?])
}

/// The number after `_warn` at a tag's end.
pub(super) fn warn_of(tag: &str) -> Option<u32> {
    let (_, number) = tag.rsplit_once("_warn")?;
    let is_number = !number.is_empty() && digits_len(number) == number.len();
    if is_number { number.parse().ok() } else { None }
}

/// What tags are ordered by, the later the greater: each run of digits as a number, the interpreter's
/// as its major version and the rest (`py39` is before `py314`, `0_9_0` before `0_12_0`, a pre-release
/// before its release); a tag that goes on is later than one that ends.
pub fn age_of(tag: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = tag;
    while !rest.is_empty() {
        let digits = digits_len(rest);
        if digits > 0 {
            let number = rest[..digits].trim_start_matches('0');
            parts.push(Part::Number(number.len(), number));
            rest = &rest[digits..];
        } else {
            let len = rest.find(|c: char| c.is_ascii_digit());
            let (text, after) = rest.split_at(len.unwrap_or(rest.len()));
            // `rc`, `a`, `b`, `dev` behind a number, and `t` of an interpreter.
            let is_before = !parts.is_empty() && !text.starts_with('_');
            parts.push(if is_before {
                Part::Before(text)
            } else {
                Part::Text(text)
            });
            rest = after;
        }
    }
    parts.push(Part::End);
    parts
}

/// A part of a tag, in the order of age: see [`age_of`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part<'a> {
    /// What makes a version a pre-release.
    Before(&'a str),
    /// Nothing follows.
    End,
    /// Letters and `_`.
    Text(&'a str),
    /// A number without leading zeros, and its length before it.
    Number(usize, &'a str),
}

/// Whether the marshal reader knows the code objects of the interpreter `python`.
pub(super) fn is_readable(python: &str) -> bool {
    matches!(
        python.strip_suffix('t').unwrap_or(python),
        "py311" | "py312" | "py313" | "py314"
    )
}

/// The length of `py314` or, of an interpreter without a global lock, `py314t` at the start of `text`.
fn interpreter_len(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("py")?;
    let digits = digits_len(rest);
    let free = rest[digits..]
        .strip_prefix('t')
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()));
    (digits >= 2).then_some(2 + digits + usize::from(free))
}

/// The lengths of the version tags that `text` may begin with, the most likely first.
///
/// Tags seen in the wild are `py314`, then `_kida` and the engine's version (any run of letters,
/// digits and `_`) and `_ast` and a number, then `_warn` and a number. Nothing marks where a tag ends
/// and a template name begins, so the longest tag is tried first: a template whose own name begins
/// with `kida…_ast2` is rarer than an engine.
pub(super) fn prefix_lens(text: &str) -> impl Iterator<Item = usize> {
    let python = interpreter_len(text);
    let abi = python.and_then(|start| Some(start + abi_len(&text[start..])?));
    let warn = abi.and_then(|start| Some(start + numbered_len(&text[start..], "_warn")?));
    [warn, abi, python].into_iter().flatten()
}

/// The lengths of the version tags that `text` may end with, the longest first.
pub(super) fn suffix_lens(text: &str) -> impl Iterator<Item = usize> {
    text.match_indices("py")
        .map(move |(at, _)| text.len() - at)
        .filter(move |&len| prefix_lens(&text[text.len() - len..]).any(|whole| whole == len))
}

/// What the engine's part of a tag begins with.
const LEAD: &str = "_kida";

/// `_kida0_12_0_ast2`; the engine's version is a digit-led text or `unknown`.
fn abi_len(text: &str) -> Option<usize> {
    let version = text.strip_prefix(LEAD)?;
    if !version.starts_with(|c: char| c.is_ascii_digit()) && !version.starts_with("unknown") {
        return None;
    }
    let run = version
        .bytes()
        .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_')
        .count();
    version[..run].match_indices("_ast").find_map(|(at, _)| {
        let len = numbered_len(&version[at..], "_ast")?;
        Some(LEAD.len() + at + len)
    })
}

/// `lead` and at least one digit, at the end of a word.
fn numbered_len(text: &str, lead: &str) -> Option<usize> {
    let rest = text.strip_prefix(lead)?;
    let digits = digits_len(rest);
    let ends = !rest[digits..].starts_with(|c: char| c.is_ascii_alphanumeric());
    (digits > 0 && ends).then_some(lead.len() + digits)
}

fn digits_len(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_seen_in_the_wild_are_tags() {
        for tag in [
            "py39",
            "py314",
            "py314t",
            "py314t_kida0_13_0_ast2_warn1",
            "py314_kida0_12_0_ast2",
            "py314_kida0_12_0_ast2_warn1",
            "py314_kidaunknown_ast2",
            "py314_kida0_13_0rc1_ast3",
        ] {
            let parsed: VersionTag = tag.parse().unwrap();
            assert_eq!(parsed.to_string(), tag);
            assert_eq!(prefix_lens(tag).next(), Some(tag.len()), "{tag}");
            assert_eq!(suffix_lens(tag).next(), Some(tag.len()), "{tag}");
        }
    }

    #[test]
    fn other_texts_are_not_tags() {
        for text in [
            "", "py", "py3", "314", "py314tt", "py314x", "py314-x", "py314_", "py314/x", "pyx314",
            "py314é",
        ] {
            assert!(text.parse::<VersionTag>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_interpreters_part_is_what_comes_first() {
        let tag: VersionTag = "py314_kida0_12_0_ast2".parse().unwrap();
        assert_eq!(tag.python(), "py314");
        assert_eq!(VersionTag::default().python(), "py314");
        assert!(tag.is_readable());
        assert!(
            !"py315_kida1_0_0_ast2"
                .parse::<VersionTag>()
                .unwrap()
                .is_readable()
        );
    }

    #[test]
    fn the_later_tag_is_the_greater() {
        let tags = [
            "py39",
            "py314t",
            "py314",
            "py314_kida0_9_0_ast2",
            "py314_kida0_12_0_ast2",
            "py314_kida0_12_0_ast2_warn1",
            "py314_kida0_13_0rc1_ast2_warn1",
            "py314_kida0_13_0_ast2_warn1",
            "py314_kida0_13_0_ast10_warn1",
            "py315",
        ];
        assert!(tags.is_sorted_by(|a, b| age_of(a) < age_of(b)));
    }

    #[test]
    fn a_tags_parts_are_told_apart() {
        assert_eq!(kida_of("py314"), None);
        assert_eq!(kida_of("py314t_kida0_12_0_ast2_warn1"), Some("0_12_0"));
        assert_eq!(kida_of("py314_kidaunknown_ast2"), Some("unknown"));
        assert_eq!(warn_of("py314_kida0_12_0_ast2_warn1"), Some(1));
        for tag in [
            "py314_kida0_12_0_ast2",
            "py314",
            "py314_x_warn",
            "py314_x_warn1_",
        ] {
            assert_eq!(warn_of(tag), None, "{tag}");
        }
    }
}
