//! docs/SEMANTICS.md names tests: they exist.
//!
//! A sentence has a footnote, `[^3-2]`, and the footnote names the tests of the sentence by their files:
//!
//! ```text
//! [^3-2]: mount/commit.rs: readers, open_readers; src/wakeup/burst.rs: polling_ends_with_a_request_and_at_its_limit
//! ```
//!
//! A file without `src/` is below `tests/`. A sentence that is new may name its test in place, `[commit.readers]`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn is_word(word: &str) -> bool {
    let fits = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
    !word.is_empty() && word.chars().all(fits)
}

fn defines(source: &str, test: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let names = lines.windows(2).filter(|two| two[0] == "#[test]");
    // The brace of a long name is in the next line.
    let mut heads = names.map(|two| two[1].trim_end_matches('{').trim_end());
    heads.any(|head| head == format!("fn {test}()"))
}

/// The names in brackets, `file.test`.
fn in_place(text: &str) -> Vec<(&str, &str)> {
    let brackets = text.split('[').skip(1);
    let names = brackets.map(|part| part.split(']').next().unwrap());
    names
        .filter_map(|name| name.split_once('.'))
        .filter(|(file, test)| is_word(file) && is_word(test))
        .collect()
}

/// The footnotes that are defined: label and text.
fn footnotes(text: &str) -> Vec<(&str, &str)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("[^"));
    lines.filter_map(|line| line.split_once("]: ")).collect()
}

/// The sources in which tests are, with the names of their files.
fn sources(root: &Path) -> Vec<(String, String)> {
    // Beside the code only where a mount would have to be watched for minutes.
    let mut rooms = vec![root.join("src/wakeup")];
    let folders = fs::read_dir(root.join("tests")).unwrap();
    rooms.extend(folders.map(|folder| folder.unwrap().path()));
    let files = rooms
        .iter()
        .filter_map(|room| fs::read_dir(room).ok())
        .flatten();
    let paths = files.map(|file| file.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// Whether `file`, as the page has it, is a file's name, a room's before it or not.
fn is_named(name: &str, file: &str) -> bool {
    file.strip_suffix(name)
        .is_some_and(|room| room.is_empty() || room.ends_with('_'))
}

#[test]
fn what_the_semantics_name_of_these_tests_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = sources(root);
    let text = fs::read_to_string(root.join("docs/SEMANTICS.md")).unwrap();
    let mut checked = 0;
    for (file, test) in in_place(&text) {
        let mut named = sources.iter().filter(|source| is_named(&source.0, file));
        assert!(
            named.any(|(_, source)| defines(source, test)),
            "{file}.{test}"
        );
        checked += 1;
    }
    for (label, tests) in footnotes(&text) {
        for group in tests.split("; ") {
            let (file, tests) = group
                .split_once(": ")
                .unwrap_or_else(|| panic!("[^{label}]: {group}"));
            let place = match file.starts_with("src/") {
                true => root.join(file),
                false => root.join("tests").join(file),
            };
            let source = fs::read_to_string(&place);
            let source = source.unwrap_or_else(|error| panic!("[^{label}]: {file}: {error}"));
            for test in tests.split(", ") {
                assert!(defines(&source, test), "[^{label}]: {file}: {test}");
                checked += 1;
            }
        }
    }
    assert!(checked >= 40, "{checked}");
}

#[test]
fn each_footnote_of_the_semantics_is_used_and_there() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SEMANTICS.md");
    let text = fs::read_to_string(page).unwrap();
    let defined: Vec<&str> = footnotes(&text).iter().map(|(label, _)| *label).collect();
    let labels: BTreeSet<&str> = defined.iter().copied().collect();
    assert_eq!(labels.len(), defined.len(), "a label is defined twice");
    let used: BTreeSet<&str> = text
        .split("[^")
        .skip(1)
        .filter_map(|part| part.split_once(']'))
        .filter(|(_, rest)| !rest.starts_with(": "))
        .map(|(label, _)| label)
        .collect();
    assert_eq!(used, labels);
}
