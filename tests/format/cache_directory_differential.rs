//! `BytecodeCache` against the real engine: both make the same names and hashes, and on the same directory
//! both see, count and remove the same.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::support::python::{Oracle, dir_arg};
use kidafs::clock::SystemClock;
use kidafs::format::{NameError, Pattern, VersionTag, hash_file, hash_source};
use kidafs::kida::BytecodeCache;
use serde_json::json;

/// The names that bite.
const NAMES: &[&str] = &[
    "base.html",
    "a/b.html",
    "a_b.html",
    "a\\b.html",
    "c:d.html",
    "C:\\x\\y.html",
    " padded.html\n",
    "sp ace.html",
    "über/straße.html",
    "日本語.html",
    "😀.html",
    "_",
    "__",
    "",
    " ",
    ".",
    "./x.html",
    "a//b.html",
    "/abs.html",
    "..",
    "../x.html",
    "a/../b.html",
    "a\\..\\b.html",
    "a/..",
    "...",
    "a/.../b",
    "..x",
    "x..",
    "\u{a0}x\u{2003}",
    "\u{1c}x\u{1f}",
    "\u{85}x\u{200b}",
    "new\nline.html",
    "tab\t.html",
    "{name}",
    "{0}",
    "}{",
    "%s",
    "*?[x].html",
    "py314_kida0_12_0_ast2",
    "0123456789abcdef",
    "x.html_0123456789abcdef",
    "a'b\"c.html",
    "-rf",
    "\u{1}",
];

fn long_name() -> String {
    "n".repeat(300)
}

#[test]
fn paths_are_those_of_the_engine() {
    let mut oracle = Oracle::start();
    let version = oracle.version();
    let hash = hash_source("x");
    let mut keys = Vec::new();
    for name in NAMES
        .iter()
        .map(|name| (*name).to_owned())
        .chain([long_name()])
    {
        for context in [None, Some(""), Some("c0ffee"), Some("0123456789abcdef0123")] {
            keys.push((name.clone(), hash.clone(), context));
        }
    }
    for short in [
        "",
        "a",
        "abc",
        "0123456789abcdef",
        "0123456789abcdef0",
        "ünïcödé-hash-of-some-length",
    ] {
        keys.push(("x".into(), short.into(), Some("ctx")));
    }
    // Every character that trimming could be about.
    for c in ('\0'..='\u{3100}').chain(['\u{feff}', '\u{e000}', '\u{1f600}', '\u{e0020}']) {
        keys.push((format!("{c}x{c}"), hash.clone(), None));
    }
    for pattern in [
        "__kida_{version}_{name}_{hash}.pyc",
        "{hash}{name}{version}",
        "x-{name}~{hash}-{version}.c",
    ] {
        let answer = oracle.ask(json!({ "do": "path", "pattern": pattern, "names": keys }));
        let theirs = answer["names"].as_array().unwrap();
        assert_eq!(theirs.len(), keys.len());
        let pattern: Pattern = pattern.parse().unwrap();
        for ((name, hash, context), theirs) in keys.iter().zip(theirs) {
            match pattern.file_name(&version, name, hash, *context) {
                Ok(ours) => assert_eq!(Some(ours.as_str()), theirs.as_str(), "{name:?}"),
                Err(NameError::Parent(_)) => assert!(theirs.is_null(), "{name:?}"),
                Err(error) => panic!("{name:?}: {error}"),
            }
        }
    }
}

#[test]
fn hashes_are_those_of_the_engine() {
    let mut oracle = Oracle::start();
    let sources = [
        "",
        "x",
        "ü 日本 😀\u{feff}",
        "a\r\nb\rc\n",
        "\0\u{7f}",
        &long_name(),
    ];
    let answer = oracle.ask(json!({ "do": "hash", "sources": sources }));
    let ours: Vec<_> = sources.iter().map(|source| hash_source(source)).collect();
    assert_eq!(answer["hashes"], json!(ours));

    // A file as the engine's own loader reads it.
    let dir = tempfile::tempdir().unwrap();
    let files: &[&[u8]] = &[
        b"",
        b"a\nb",
        b"a\r\nb\r\n",
        b"a\rb\r",
        b"\r\r\n\n\r",
        b"\xef\xbb\xbfbom\r\n",
        "ü\r\n日本\u{85}\u{2028}".as_bytes(),
        b"\0\x1a\x0c\x0b",
        b"\xff",
        b"ok\xc3",
        b"\xed\xa0\x80",
    ];
    for (i, content) in files.iter().enumerate() {
        let file = dir.path().join(format!("{i}.html"));
        fs::write(&file, content).unwrap();
        let answer = oracle.ask(json!({ "do": "hash_file", "file": dir_arg(&file) }));
        let ours = hash_file(content).ok();
        assert_eq!(
            answer["hash"].as_str(),
            ours.as_deref(),
            "{}",
            content.escape_ascii()
        );
    }
}

/// Files of every kind and name; the same each time, with the same ages.
fn odd_directory(dir: &Path, version: &VersionTag) {
    let now = SystemTime::now();
    let days = |days: u64| now - Duration::from_secs(days * 86400);
    let mut names: Vec<Vec<u8>> = Vec::new();
    let hash = hash_source("x");
    for name in NAMES {
        if let Ok(file) = Pattern::default().file_name(version, name, &hash, None) {
            names.push(file.into_bytes());
        }
    }
    for name in [
        "__kida_.pyc",
        "__kida_py314_.pyc",
        "__kida_py314.pyc",
        "__kida_py313_x_0123456789abcdef.pyc",
        "__kida_py3140_x.pyc",
        "__KIDA_py314_x.pyc",
        "__kida_x.PYC",
        ".__kida_x.pyc",
        "__kida_x.pyc ",
        " __kida_x.pyc",
        "__kida_x.pyc.abcdefgh.tmp",
        "__kida_a.tmp",
        "__kida_\n.pyc",
        "__kida_py314_\n\n.pyc",
        "__kida_[x]*?.pyc",
        "__jinja2_x.cache",
        "plain.pyc",
        "__kida_x\\.pyc",
    ] {
        names.push(name.as_bytes().to_vec());
    }
    names.push(b"__kida_py314_\xff\xfe.pyc".to_vec());
    for (i, name) in names.iter().enumerate() {
        let path = dir.join(OsStr::from_bytes(name));
        fs::write(&path, vec![b'x'; i * 10]).unwrap();
        fs::File::open(&path)
            .unwrap()
            .set_modified(days(i as u64 * 3))
            .unwrap();
    }
    for (name, age) in [("__kida_py314_dir.pyc", 100), ("__kida_dir_full.pyc", 1)] {
        fs::create_dir(dir.join(name)).unwrap();
        fs::write(dir.join(name).join("__kida_within.pyc"), "within").unwrap();
        fs::File::open(dir.join(name))
            .unwrap()
            .set_modified(days(age))
            .unwrap();
    }
    symlink("nowhere", dir.join("__kida_py314_dangling.pyc")).unwrap();
    symlink("__kida_loop.pyc", dir.join("__kida_loop.pyc")).unwrap();
    symlink("plain.pyc", dir.join("__kida_py314_link.pyc")).unwrap();
    symlink("__kida_py314_dir.pyc", dir.join("__kida_dirlink.pyc")).unwrap();
}

fn listing(dir: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    names.sort();
    names
}

#[test]
fn stats_clear_and_cleanup_see_and_remove_what_the_engine_does() {
    let mut oracle = Oracle::start();
    let version = oracle.version();
    let pair = || {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        odd_directory(ours.path(), &version);
        odd_directory(theirs.path(), &version);
        let cache =
            BytecodeCache::existing(ours.path(), Pattern::default()).with_version(version.clone());
        (ours, theirs, cache)
    };
    let stats = |oracle: &mut Oracle, cache: &BytecodeCache, ours: &Path| {
        let answer = oracle.ask(json!({ "do": "stats", "dir": dir_arg(ours) }));
        assert_eq!(
            answer,
            serde_json::to_value(cache.stats().unwrap()).unwrap()
        );
    };
    for current_version_only in [true, false] {
        let (ours, theirs, cache) = pair();
        stats(&mut oracle, &cache, ours.path());
        let answer = oracle.ask(json!({
            "do": "clear", "dir": dir_arg(theirs.path()), "current_version_only": current_version_only,
        }));
        let removed = cache.clear(current_version_only).unwrap();
        assert_eq!(answer["removed"], removed);
        assert!(removed > 30);
        assert_eq!(listing(ours.path()), listing(theirs.path()));
        stats(&mut oracle, &cache, ours.path());
    }
    for days in [0, 1, 10, 30, 90, 10_000] {
        let (ours, theirs, cache) = pair();
        let answer = oracle
            .ask(json!({ "do": "cleanup", "dir": dir_arg(theirs.path()), "max_age_days": days }));
        let age = Duration::from_secs(days * 86400);
        assert_eq!(
            answer["removed"],
            cache.cleanup(age, &SystemClock).unwrap(),
            "{days} days"
        );
        assert_eq!(listing(ours.path()), listing(theirs.path()), "{days} days");
        stats(&mut oracle, &cache, ours.path());
    }
}
