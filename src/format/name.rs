//! From a template's name to the name in a file name, and the parts of an entry's file name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;
use thiserror::Error;

use super::version::{is_readable, python_part};

/// How much of a hash stands in a file name, in characters.
pub const HASH_LEN: usize = 16;

/// Why a template has no file name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// A part of the name is `..`; the engine raises `TemplateNotFoundError`.
    #[error("the template name '{0}' has a '..' part, which the engine refuses")]
    Parent(String),
    /// The hash contains a `/`, so the result would name a file in another directory.
    #[error("the hash '{0}' has a '/'; give hex digits")]
    Hash(String),
}

/// A template's canonical name: trimmed, with `/` for `\`.
///
/// Trimmed is what Python's `str.strip` trims, which is Unicode white space and the four
/// information separators U+001C to U+001F.
///
/// # Errors
/// A part of the name is `..`.
pub fn normalize_template_name(name: &str) -> Result<String, NameError> {
    let is_space = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
    let normalized = name.trim_matches(is_space).replace('\\', "/");
    if normalized.split('/').any(|part| part == "..") {
        return Err(NameError::Parent(name.to_owned()));
    }
    Ok(normalized)
}

/// A template's name as it stands in a file name: canonical, then `/` and `:` each as `_`. So
/// `a/b.html` and `a_b.html` share one file, and are told apart by their source hashes only.
///
/// # Errors
/// A part of the name is `..`.
pub fn flat_name(name: &str) -> Result<String, NameError> {
    Ok(normalize_template_name(name)?.replace(['/', ':'], "_"))
}

/// The `{hash}` of a file name: the first 16 characters of the source hash, then, with a context
/// hash that is not empty, `_` and its first 16.
///
/// # Errors
/// A hash contains a `/`.
pub fn hash_key(source_hash: &str, context_hash: Option<&str>) -> Result<String, NameError> {
    let mut key = shortened(source_hash)?.to_owned();
    if let Some(context) = context_hash.filter(|hash| !hash.is_empty()) {
        key.push('_');
        key.push_str(shortened(context)?);
    }
    Ok(key)
}

fn shortened(hash: &str) -> Result<&str, NameError> {
    let end = hash.char_indices().nth(HASH_LEN);
    let short = &hash[..end.map_or(hash.len(), |(at, _)| at)];
    if short.contains('/') {
        return Err(NameError::Hash(hash.to_owned()));
    }
    Ok(short)
}

/// The parts of an entry's file name, as [`Pattern::parse_name`](super::Pattern::parse_name) reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct EntryName<'a> {
    /// The version tag, `py314` or longer.
    pub version: &'a str,
    /// The template's name as it stands in the file name ([`flat_name`]); what were its `/` and `:`
    /// cannot be known any more.
    pub name: &'a str,
    /// The first 16 hex digits of the source hash; fewer where the engine was given fewer.
    pub source_hash: &'a str,
    /// The same of the static context's hash, if the template was compiled with one.
    pub context_hash: Option<&'a str>,
}

impl<'a> EntryName<'a> {
    /// The interpreter's part of the version tag, such as `py314`.
    pub fn python(&self) -> &'a str {
        python_part(self.version)
    }

    /// Whether [`marshal`](super::marshal) knows the code objects of the interpreter that the entry
    /// is for: CPython 3.11 to 3.14. A stream of another one says nothing about its entry when it is rejected.
    pub fn is_readable(&self) -> bool {
        is_readable(self.python())
    }
}

/// Whether the engine's `stats`, `cleanup` and `clear` see a file of this name: they go by the glob
/// `__kida_*.pyc`, whatever the pattern is.
pub fn is_counted(name: &OsStr) -> bool {
    matches_glob(name, b"__kida_")
}

/// Whether the engine's `clear(current_version_only=True)` sees a file of this name under the
/// interpreter `python`: it goes by the glob `__kida_py314_*.pyc`.
pub fn is_counted_for(name: &OsStr, python: &str) -> bool {
    matches_glob(name, format!("__kida_{python}_").as_bytes())
}

fn matches_glob(name: &OsStr, prefix: &[u8]) -> bool {
    const SUFFIX: &[u8] = b".pyc";
    let rest = name.as_bytes().strip_prefix(prefix);
    rest.is_some_and(|rest| rest.ends_with(SUFFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_trimmed_and_its_separators_become_underscores() {
        assert_eq!(flat_name(" a/b\\c:d.html\n").unwrap(), "a_b_c_d.html");
        assert_eq!(flat_name("\u{a0}\x1cx\x1f\u{3000}").unwrap(), "x");
        assert_eq!(flat_name("../x"), Err(NameError::Parent("../x".into())));
        assert_eq!(
            flat_name("a\\..\\x"),
            Err(NameError::Parent("a\\..\\x".into()))
        );
        assert_eq!(flat_name("a..b/...").unwrap(), "a..b_...");
    }

    #[test]
    fn a_hash_is_cut_to_16_characters() {
        assert_eq!(
            hash_key("0123456789abcdef0", None).unwrap(),
            "0123456789abcdef"
        );
        assert_eq!(hash_key("abc", Some("")).unwrap(), "abc");
        assert_eq!(hash_key("abc", Some("def")).unwrap(), "abc_def");
        assert_eq!(
            hash_key("éééééééééééééééééé", None).unwrap(),
            "é".repeat(16)
        );
        assert!(hash_key("../x", None).is_err());
    }

    #[test]
    fn the_engines_glob_takes_an_empty_middle_and_no_overlap() {
        assert!(is_counted(OsStr::new("__kida_.pyc")));
        assert!(!is_counted(OsStr::new("__kida_.py")));
        assert!(!is_counted(OsStr::new("x__kida_.pyc")));
        assert!(is_counted_for(OsStr::new("__kida_py314_a.pyc"), "py314"));
        assert!(!is_counted_for(OsStr::new("__kida_py3140_a.pyc"), "py314"));
        assert!(!is_counted_for(OsStr::new("__kida_py314.pyc"), "py314"));
    }
}
