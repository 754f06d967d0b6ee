//! The warnings section of a v4 entry: what the engine's compiler had to say about a template.
//!
//! The engine removes an entry whose warnings are not exactly what it writes (kida's
//! `_deserialize_compiler_warnings`), and the same is refused here: a JSON list of objects with the five
//! members of [`Warning`] and no other, `line` null or a positive integer, `code` one of the engine's own.

use std::collections::HashMap;
use std::fmt;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

/// One compiler warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The engine's code for it, such as `K-WARN-001`.
    pub code: String,
    /// The template's line, from 1. A line beyond what fits is the greatest that does.
    pub line: Option<u64>,
    /// What it says. Half of a surrogate pair, which JSON can have, is replaced.
    pub message: String,
    /// What to do about it.
    pub suggestion: Option<String>,
    /// The template that it is about.
    pub template: Option<String>,
}

/// Which codes a warning may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codes {
    /// Those of kida's `ErrorCode` as it is after 0.12.0; another removes the entry.
    Known,
    /// Any of their form: the engine is a later one.
    Any,
}

/// Why a section is not the engine's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WarningsError {
    /// It is not a JSON list of warnings.
    #[error("{0}")]
    Json(String),
    /// A warning has a code that the engine does not know.
    #[error("the engine has no warning code {0:?}")]
    Code(String),
}

/// kida's `ErrorCode` (`kida/exceptions.py`): an area, and the numbers that it has, from 1.
const KNOWN_CODES: [(&str, u32); 11] = [
    ("LEX", 4),
    ("PAR", 7),
    ("RUN", 17),
    ("TPL", 5),
    ("SEC", 5),
    ("CMP", 2),
    ("WARN", 2),
    ("PRI", 5),
    ("CTX", 2),
    ("ESC", 5),
    ("TYP", 3),
];

impl Codes {
    fn has(self, code: &str) -> bool {
        let Some((area, number)) = code
            .strip_prefix("K-")
            .and_then(|code| code.split_once('-'))
        else {
            return false;
        };
        let is_number = number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_digit());
        let is_area = !area.is_empty() && area.bytes().all(|byte| byte.is_ascii_uppercase());
        let Some(number) = number.parse::<u32>().ok().filter(|_| is_number && is_area) else {
            return false;
        };
        let last = |wanted: &str| {
            let known = KNOWN_CODES.iter().find(|(area, _)| *area == wanted);
            known.map_or(0, |(_, last)| *last)
        };
        match self {
            Self::Any => true,
            Self::Known if area == "PATH" => number == 1,
            Self::Known => (1..=last(area)).contains(&number),
        }
    }
}

/// Reads a warnings section, whichever engine wrote it.
///
/// # Errors
/// It is not a JSON list of warnings.
pub fn parse_warnings(section: &[u8]) -> Result<Vec<Warning>, WarningsError> {
    check_warnings(section, Codes::Any)
}

/// Reads a warnings section as an engine with these codes does.
///
/// # Errors
/// The engine would remove the entry for it.
pub fn check_warnings(section: &[u8], codes: Codes) -> Result<Vec<Warning>, WarningsError> {
    let warnings: Vec<Warning> =
        serde_json::from_slice(section).map_err(|error| WarningsError::Json(error.to_string()))?;
    match warnings.iter().find(|warning| !codes.has(&warning.code)) {
        Some(warning) => Err(WarningsError::Code(warning.code.clone())),
        None => Ok(warnings),
    }
}

/// A JSON value of one warning's, as far as warnings have any.
enum Member {
    Null,
    Text(String),
    Line(u64),
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        match raw.as_bytes().first() {
            Some(b'n') => Ok(Self::Null),
            Some(b'"') => text(raw).map(Self::Text).map_err(de::Error::custom),
            Some(b'1'..=b'9') if raw.bytes().all(|byte| byte.is_ascii_digit()) => {
                // Python reads integers of up to 4300 digits.
                let is_read = raw.len() <= 4300;
                let line = raw.parse().unwrap_or(u64::MAX);
                is_read
                    .then_some(Self::Line(line))
                    .ok_or_else(|| de::Error::custom("a line has too many digits"))
            }
            _ => Err(de::Error::custom(
                "a member is neither null, a text nor a line's number",
            )),
        }
    }
}

/// A JSON string's text. Unlike serde's own this takes half of a surrogate pair, as Python does.
fn text(raw: &str) -> serde_json::Result<String> {
    struct Lossy;
    impl Visitor<'_> for Lossy {
        type Value = String;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }
        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
            Ok(String::from_utf8_lossy(bytes).into_owned())
        }
    }
    serde_json::Deserializer::from_str(raw).deserialize_bytes(Lossy)
}

impl<'de> Deserialize<'de> for Warning {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Warning;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a warning")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Warning, A::Error> {
        const NAMES: [&str; 5] = ["code", "line", "message", "suggestion", "template"];
        // Of a member that stands twice the last counts, as in Python.
        let mut members: HashMap<&str, Member> = HashMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let Some(name) = NAMES.iter().find(|name| **name == key) else {
                return Err(de::Error::unknown_field(&key, &NAMES));
            };
            members.insert(name, map.next_value()?);
        }
        let mut take = |name: &'static str| {
            members
                .remove(name)
                .ok_or_else(|| de::Error::missing_field(name))
        };
        let [code, line, message, suggestion, template] = NAMES;
        let wrong = |name| de::Error::custom(format_args!("{name} is of the wrong kind"));
        let optional = |member, name| match member {
            Member::Null => Ok(None),
            Member::Text(text) => Ok(Some(text)),
            Member::Line(_) => Err(wrong(name)),
        };
        let required = |member, name| optional(member, name)?.ok_or_else(|| wrong(name));
        Ok(Warning {
            code: required(take(code)?, code)?,
            line: match take(line)? {
                Member::Null => None,
                Member::Line(number) => Some(number),
                Member::Text(_) => return Err(wrong(line)),
            },
            message: required(take(message)?, message)?,
            suggestion: optional(take(suggestion)?, suggestion)?,
            template: optional(take(template)?, template)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(member: &str) -> Vec<u8> {
        let mut members = vec![
            r#""code":"K-WARN-001""#,
            r#""line":3"#,
            r#""message":"m""#,
            r#""suggestion":null"#,
            r#""template":"a.html""#,
        ];
        let (name, _) = member.split_once(':').unwrap_or_default();
        members.retain(|other| !other.starts_with(name) || name.is_empty());
        if !member.is_empty() && !member.ends_with(':') {
            members.push(member);
        }
        format!("[{{{}}}]", members.join(",")).into_bytes()
    }

    #[test]
    fn what_the_engine_writes_is_read() {
        assert_eq!(check_warnings(b"[]", Codes::Known).unwrap(), []);
        let [warning] = &check_warnings(&one(""), Codes::Known).unwrap()[..] else {
            panic!()
        };
        assert_eq!(
            (
                warning.code.as_str(),
                warning.line,
                warning.message.as_str()
            ),
            ("K-WARN-001", Some(3), "m")
        );
        assert_eq!(warning.template.as_deref(), Some("a.html"));
    }

    #[test]
    fn what_python_reads_otherwise_than_serde_is_read_as_python_does() {
        for member in [
            r#""line":null"#,
            r#""line":18446744073709551616"#,
            r#""message":"\ud800""#,
            r#""message":"a","message":"b""#,
            r#""suggestion":"s""#,
        ] {
            assert!(
                check_warnings(&one(member), Codes::Known).is_ok(),
                "{member}"
            );
        }
    }

    #[test]
    fn what_makes_an_entry_invalid_for_the_engine_is_refused() {
        for member in [
            r#""new":1"#,
            r#""new":null"#,
            r#""line":0"#,
            r#""line":-1"#,
            r#""line":1.0"#,
            r#""line":1e3"#,
            r#""line":true"#,
            r#""line":"3""#,
            r#""code":"K-WARN-003""#,
            r#""code":"x""#,
            r#""code":null"#,
            r#""message":null"#,
            r#""message":3"#,
            r#""suggestion":false"#,
            r#""template":["a"]"#,
            r#""line":"#,
            r#""suggestion":"#,
            r#""template":"#,
        ] {
            let section = one(member);
            let text = String::from_utf8_lossy(&section).into_owned();
            assert!(check_warnings(&section, Codes::Known).is_err(), "{text}");
        }
        for bad in [
            &b""[..],
            b"{}",
            b"null",
            b"[1]",
            b"[{}]",
            b"[[]]",
            b"[",
            b"[\xff]",
            b"[] x",
        ] {
            assert!(check_warnings(bad, Codes::Known).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_later_engines_codes_are_taken_by_their_form() {
        assert!(parse_warnings(&one(r#""code":"K-NEW-042""#)).is_ok());
        assert!(parse_warnings(&one(r#""code":"42""#)).is_err());
    }
}
