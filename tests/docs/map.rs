//! The map in src/lib.rs: every room is on it, and imports run downwards only. docs/ARCHITECTURE.md names each thread.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn source(place: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(place)
}

/// The rooms in the order of the map, from the top down.
fn map() -> Vec<String> {
    let text = fs::read_to_string(source("src/lib.rs")).unwrap();
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        // A room that is not built without its feature has no link.
        .map(|row| row.trim_start_matches('[').trim_start_matches('`'));
    let names = rows.flat_map(|row| {
        let rooms = row.split(" | ").next().unwrap().split(", [`");
        rooms.map(|room| room.split('`').next().unwrap().to_owned())
    });
    names.collect()
}

/// The Rust files of a file or folder.
fn files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap();
    let inside = entries.flat_map(|entry| files(&entry.unwrap().path()));
    inside
        .filter(|file| file.extension() == Some("rs".as_ref()))
        .collect()
}

/// The code of a file, without comments and without its tests.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

/// The rooms that a piece of code names: `crate::room` and `crate::{room, room::…}`.
fn rooms(code: &str) -> BTreeSet<String> {
    let name = |text: &str| -> String {
        let letters = text.trim_start().chars();
        letters
            .take_while(|c| *c == '_' || c.is_ascii_alphanumeric())
            .collect()
    };
    let mut rooms = BTreeSet::new();
    for used in code.split("crate::").skip(1) {
        match used.strip_prefix('{') {
            None => rooms.insert(name(used)),
            Some(list) => {
                let mut depth = 0;
                let mut at_start = true;
                for (at, c) in list.char_indices() {
                    if at_start && depth == 0 {
                        rooms.insert(name(&list[at..]));
                    }
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        _ => {}
                    }
                    at_start = c == ',' && depth == 0;
                }
                continue;
            }
        };
    }
    rooms
}

#[test]
fn imports_run_downwards_only() {
    let map = map();
    let position = |room: &str| map.iter().position(|name| name == room);
    let mut upwards = Vec::new();
    for entry in fs::read_dir(source("src")).unwrap() {
        let path = entry.unwrap().path();
        let room = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if ["lib", "main"].contains(&room.as_str()) {
            continue;
        }
        let own =
            position(&room).unwrap_or_else(|| panic!("{room} is not on the map of src/lib.rs"));
        let files = files(&path).into_iter();
        for file in files.filter(|file| !file.to_str().unwrap().contains("test")) {
            for named in rooms(&code(&file)) {
                if position(&named).is_some_and(|other| other < own) {
                    upwards.push(format!("{} imports {named}", file.display()));
                }
            }
        }
    }
    assert_eq!(upwards, Vec::<String>::new());
}

#[test]
fn what_a_piece_of_code_names() {
    let code = "use crate::evict::{Plan, Reason};\nuse crate::{clock, tier::{Digest, Step}};\ncrate::vfs::Vfs";
    let expected = ["clock", "evict", "tier", "vfs"].map(str::to_owned);
    assert_eq!(rooms(code), expected.into());
}

/// The names in a text that are between `before` and `after` and begin with `kidafs-`.
fn thread_names(text: &str, before: &str, after: char) -> BTreeSet<String> {
    let parts = text.split(before).skip(1);
    let names = parts.filter_map(|part| part.split(after).next());
    let names = names.filter(|name| name.starts_with("kidafs-"));
    names.map(str::to_owned).collect()
}

#[test]
fn the_architecture_names_each_thread() {
    let mut started = BTreeSet::new();
    for file in files(&source("src")) {
        let code = code(&file);
        for before in [".name(\"", ".spawn(\""] {
            started.extend(thread_names(&code, before, '"'));
        }
    }
    let page = fs::read_to_string(source("docs/ARCHITECTURE.md")).unwrap();
    let named = thread_names(&page, "`", '`');
    let missing: Vec<&String> = started.difference(&named).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(started.len() >= 10, "{started:?}");
}
