//! docs/SEMANTICS.md names tests: they exist.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::path::Path;

/// The names in brackets, `file.test`.
fn references(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for part in text.split('[').skip(1) {
        let name = part.split(']').next().unwrap();
        let (file, test) = name.split_once('.').unwrap_or_default();
        let is_word = |word: &str| {
            let fits = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
            !word.is_empty() && word.chars().all(fits)
        };
        if is_word(file) && is_word(test) {
            found.push((file, test));
        }
    }
    found
}

#[test]
fn what_the_semantics_name_of_these_tests_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/SEMANTICS.md")).unwrap();
    let mut checked = 0;
    for (file, test) in references(&text) {
        let path = root.join("tests").join(format!("{file}.rs"));
        let source = fs::read_to_string(path).unwrap_or_else(|_| panic!("{file}.{test}"));
        let definition = format!("#[test]\nfn {test}() {{");
        assert!(source.contains(&definition), "{file}.{test}");
        checked += 1;
    }
    assert!(checked >= 40, "{checked}");
}
