//! The warnings section of a v4 entry: what the engine's compiler had to say about a template.

use serde::{Deserialize, Serialize};

/// One compiler warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// The engine's code for it.
    pub code: String,
    /// The template's line, from 1.
    pub line: Option<u64>,
    /// What it says.
    pub message: String,
    /// What to do about it.
    pub suggestion: Option<String>,
    /// The template that it is about.
    pub template: Option<String>,
}

/// Reads a warnings section. Members that this release does not know are passed over.
///
/// # Errors
/// It is not a JSON list of warnings.
pub fn parse_warnings(section: &[u8]) -> Result<Vec<Warning>, serde_json::Error> {
    serde_json::from_slice(section)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_read_and_anything_else_is_refused() {
        assert_eq!(parse_warnings(b"[]").unwrap(), []);
        let section = br#"[{"code":"K-1","line":3,"message":"m","suggestion":null,"template":"a.html","new":1}]"#;
        let [warning] = &parse_warnings(section).unwrap()[..] else {
            panic!()
        };
        assert_eq!((warning.code.as_str(), warning.line), ("K-1", Some(3)));
        for bad in [&b""[..], b"{}", b"[1]", b"[{}]", b"[", b"[\xff]"] {
            assert!(parse_warnings(bad).is_err(), "{bad:?}");
        }
    }
}
