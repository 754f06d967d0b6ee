//! docs/SEMANTICS.md names tests: they exist.

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
    for (file, test) in references(&text) {
        let named = sources.iter().filter(|source| is_named(&source.0, file));
        let definition = ["#[test]".to_owned(), format!("fn {test}() {{")];
        let mut defined = named.filter(|(_, source)| {
            let lines: Vec<&str> = source.lines().map(str::trim).collect();
            lines.windows(2).any(|two| two == definition)
        });
        assert!(defined.next().is_some(), "{file}.{test}");
        checked += 1;
    }
    assert!(checked >= 40, "{checked}");
}
