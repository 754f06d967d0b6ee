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
        // Beside the code only where a mount would have to be watched for minutes.
        let places = [format!("tests/{file}.rs"), format!("src/wakeup/{file}.rs")];
        let mut sources = places
            .map(|place| fs::read_to_string(root.join(place)))
            .into_iter();
        let source = sources.find_map(Result::ok);
        let source = source.unwrap_or_else(|| panic!("{file}.{test}"));
        let lines: Vec<&str> = source.lines().map(str::trim).collect();
        let definition = ["#[test]".to_owned(), format!("fn {test}() {{")];
        assert!(
            lines.windows(2).any(|two| two == definition),
            "{file}.{test}"
        );
        checked += 1;
    }
    assert!(checked >= 40, "{checked}");
}
