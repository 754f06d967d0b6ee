//! `BytecodeCache`, row by row of the engine's behaviour, with its failures. What needs the real engine
//! to compare with is in `cache_differential.rs`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use kidafs::clock::{ManualClock, SystemClock};
use kidafs::format::{Engine, Entry, Format, NameError, Pattern, hash_source};
use kidafs::kida::{BytecodeCache, DEFAULT_MAX_AGE, Parts, SetError, Stats, Stored};
use tempfile::TempDir;

/// A marshalled code object: `compile("", "t.html", "exec")`, reduced to what must be there.
const CODE: &[u8] = b"\xe3\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\
    s\x02\0\0\0\x95\0\xa9\0\xa9\0r\x02\0\0\0s\0\0\0\0z\x06t.htmlz\x08<module>z\x08<module>\
    \x01\0\0\0s\0\0\0\0s\0\0\0\0";
/// `pickle.dumps([1])`.
const PICKLE: &[u8] = b"\x80\x05]\x94K\x01a.";

fn cache() -> (TempDir, BytecodeCache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = BytecodeCache::new(dir.path(), Pattern::default()).unwrap();
    (dir, cache)
}

fn hash() -> String {
    hash_source("source")
}

fn names(dir: &Path) -> Vec<String> {
    let listing = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = listing
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn write(cache: &BytecodeCache, bytes: &[u8]) -> std::path::PathBuf {
    let path = cache.path("t", &hash(), None).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

fn entry(format: Format) -> Entry<'static> {
    Entry {
        format,
        code: CODE,
        precomputed: (format >= Format::V3).then_some(PICKLE),
        warnings: (format == Format::V4).then_some(b"[]"),
        ast: (format != Format::Legacy).then_some(PICKLE),
    }
}

#[test]
fn the_directory_is_created_with_its_parents() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b/c");
    BytecodeCache::new(&deep, Pattern::default()).unwrap();
    assert!(deep.is_dir());
    BytecodeCache::new(&deep, Pattern::default()).unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(BytecodeCache::new(dir.path().join("file"), Pattern::default()).is_err());
    assert!(BytecodeCache::new(dir.path().join("file/x"), Pattern::default()).is_err());
}

#[test]
fn what_is_set_is_got_in_the_format_of_its_parts() {
    let (dir, cache) = cache();
    for (precomputed, ast, format) in [
        (None, None, Format::V2),
        (None, Some(PICKLE), Format::V2),
        (Some(&b""[..]), Some(&b""[..]), Format::V2),
        (Some(PICKLE), None, Format::V3),
        (Some(PICKLE), Some(PICKLE), Format::V3),
    ] {
        let parts = Parts {
            code: CODE,
            precomputed,
            ast,
            warnings: None,
        };
        let stored = cache.set("a/b.html", &hash(), Some("c0"), &parts).unwrap();
        assert!(matches!(stored, Stored::Yes(stored) if stored == format));
        let got = cache.get("a/b.html", &hash(), Some("c0")).unwrap().unwrap();
        assert_eq!((got.format(), got.code()), (format, CODE));
        assert_eq!(
            got.precomputed(),
            precomputed.filter(|part| !part.is_empty())
        );
        assert_eq!(got.ast(), ast.filter(|part| !part.is_empty()));
        assert_eq!(got.warnings(), None);
    }
    // One file, under its final name, for its owner only.
    let name = format!("__kida_py314_a_b.html_{}_c0.pyc", &hash()[..16]);
    assert_eq!(names(dir.path()), [name.as_str()]);
    let mode = fs::metadata(dir.path().join(name))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn entries_of_every_format_are_got() {
    let (_dir, cache) = cache();
    for format in [Format::Legacy, Format::V2, Format::V3, Format::V4] {
        let entry = entry(format);
        write(&cache, &entry.encode().unwrap());
        let got = cache.get("t", &hash(), None).unwrap().unwrap();
        assert_eq!((got.format(), got.code()), (format, CODE));
        assert_eq!(got.precomputed(), entry.precomputed);
        assert_eq!(got.warnings(), entry.warnings);
        assert_eq!(got.ast(), entry.ast);
    }
}

#[test]
fn a_miss_is_no_error() {
    let (dir, cache) = cache();
    assert_eq!(cache.get("t", &hash(), None), Ok(None));
    // A name that no filesystem takes, and one that no system call takes.
    assert_eq!(cache.get(&"x".repeat(300), &hash(), None), Ok(None));
    assert_eq!(cache.get("a\0b", &hash(), None), Ok(None));
    // What cannot be read stays.
    let path = cache.path("t", &hash(), None).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(cache.get("t", &hash(), None), Ok(None));
    assert!(path.is_dir());
    drop(dir);
    assert_eq!(cache.get("t", &hash(), None), Ok(None));
}

#[test]
fn a_name_with_a_parent_part_is_refused() {
    let (_dir, cache) = cache();
    let refused = NameError::Parent("a/../b".into());
    assert_eq!(cache.get("a/../b", &hash(), None), Err(refused.clone()));
    let parts = Parts {
        code: CODE,
        ..Parts::default()
    };
    let error = cache.set("a/../b", &hash(), None, &parts).unwrap_err();
    assert!(matches!(error, SetError::Name(name) if name == refused));
}

#[test]
fn an_entry_truncated_before_its_ast_is_removed_and_is_a_miss() {
    let (dir, cache) = cache();
    for format in [Format::Legacy, Format::V2, Format::V3, Format::V4] {
        let bytes = entry(format).encode().unwrap();
        let head = bytes.len() - entry(format).ast.map_or(0, <[u8]>::len);
        for end in 0..head {
            write(&cache, &bytes[..end]);
            assert_eq!(
                cache.get("t", &hash(), None),
                Ok(None),
                "{format} cut at {end}"
            );
            assert!(names(dir.path()).is_empty(), "{format} cut at {end}");
        }
    }
}

#[test]
fn a_bad_ast_is_no_ast_and_the_code_stays_valid() {
    let (dir, cache) = cache();
    for format in [Format::V2, Format::V3, Format::V4] {
        let bytes = entry(format).encode().unwrap();
        for end in bytes.len() - PICKLE.len()..bytes.len() {
            write(&cache, &bytes[..end]);
            let got = cache.get("t", &hash(), None).unwrap().unwrap();
            assert_eq!(
                (got.code(), got.ast()),
                (CODE, None),
                "{format} cut at {end}"
            );
        }
        assert_eq!(names(dir.path()).len(), 1);
    }
}

#[test]
fn bad_code_precomputed_values_or_warnings_remove_the_entry() {
    let (dir, cache) = cache();
    let bad = [
        Entry {
            code: b"\xe3",
            ..entry(Format::V2)
        },
        Entry {
            code: b"N",
            ..entry(Format::V2)
        },
        Entry {
            precomputed: Some(b"\x80\x05]\x94"),
            ..entry(Format::V3)
        },
        Entry {
            precomputed: Some(b"?"),
            ..entry(Format::V4)
        },
        Entry {
            warnings: Some(b"{}"),
            ..entry(Format::V4)
        },
    ];
    for entry in bad {
        write(&cache, &entry.encode().unwrap());
        assert_eq!(cache.get("t", &hash(), None), Ok(None), "{entry:?}");
        assert!(names(dir.path()).is_empty(), "{entry:?}");
    }
}

#[test]
fn an_entry_of_a_later_format_is_a_miss_and_stays() {
    let (dir, cache) = cache();
    for number in [3, 4, b'c', 0xe3, 0xff] {
        write(&cache, &[number, b'K', b'D', b'A', 0, 0, 0, 0]);
        assert_eq!(cache.get("t", &hash(), None), Ok(None));
        assert_eq!(names(dir.path()).len(), 1, "{number}");
    }
}

/// What kida after 0.12.0 removes for its warnings, its precomputed values or its syntax tree.
#[test]
fn what_makes_a_v4_entry_invalid_for_the_engine_makes_it_invalid_here() {
    let (dir, cache) = cache();
    let cache = cache.with_version("py314_kida0_12_0_ast2_warn1".parse().unwrap());
    let warning = |line: &str, code: &str, more: &str| {
        format!(
            r#"[{{"code":"{code}","line":{line},"message":"m","suggestion":null,"template":"t"{more}}}]"#
        )
    };
    let valid = Entry {
        ast: None,
        ..entry(Format::V4)
    };
    let with = |warnings: &str| {
        let valid = Entry {
            warnings: Some(warnings.as_bytes()),
            ..valid
        };
        write(&cache, &valid.encode().unwrap());
        let is_hit = cache.get("t", &hash(), None).unwrap().is_some();
        assert_eq!(is_hit, !names(dir.path()).is_empty(), "{warnings}");
        is_hit
    };
    assert!(with("[]"));
    assert!(with(&warning("1", "K-WARN-001", "")));
    assert!(with(&warning("null", "K-PATH-001", "")));
    assert!(!with(&warning("0", "K-WARN-001", "")));
    assert!(!with(&warning("true", "K-WARN-001", "")));
    assert!(!with(&warning("1", "K-WARN-009", "")));
    assert!(!with(&warning("1", "K-WARN-001", ",\"new\":1")));
    assert!(!with("{}"));
    // A dictionary, a tuple, None: no list.
    for precomputed in [&b"\x80\x05}\x94."[..], b"\x80\x05]\x85\x94.", b"N."] {
        let bad = Entry {
            precomputed: Some(precomputed),
            ..valid
        };
        write(&cache, &bad.encode().unwrap());
        assert_eq!(cache.get("t", &hash(), None), Ok(None));
        assert!(names(dir.path()).is_empty());
        // In v3 the engine does not look.
        let taken = Entry {
            format: Format::V3,
            warnings: None,
            ..bad
        };
        write(&cache, &taken.encode().unwrap());
        assert!(cache.get("t", &hash(), None).unwrap().is_some());
    }
    // A list is no syntax tree; what is no pickle at all is forgiven.
    for (ast, is_hit) in [(PICKLE, false), (&b"?"[..], true)] {
        let entry = Entry {
            ast: Some(ast),
            ..valid
        };
        write(&cache, &entry.encode().unwrap());
        let got = cache.get("t", &hash(), None).unwrap();
        assert_eq!(got.is_some(), is_hit);
        assert!(got.is_none_or(|got| got.ast().is_none()));
    }
}

#[test]
fn each_release_of_the_engine_gets_the_format_that_it_writes() {
    let (_dir, cache) = cache();
    let warnings =
        &br#"[{"code":"K-WARN-001","line":1,"message":"m","suggestion":null,"template":"t"}]"#[..];
    for (tag, precomputed, format) in [
        ("py314", None, Format::V2),
        ("py314_kida0_12_0_ast2", Some(PICKLE), Format::V3),
        ("py314_kida0_12_0_ast2", None, Format::V2),
        ("py314_kida0_12_0_ast2_warn1", Some(PICKLE), Format::V4),
        ("py314t_kida0_13_0_ast2_warn1", None, Format::V4),
    ] {
        let cache = cache.clone().with_version(tag.parse().unwrap());
        for warnings in [None, Some(warnings)] {
            let parts = Parts {
                code: CODE,
                precomputed,
                ast: None,
                warnings,
            };
            let stored = cache.set("t", &hash(), None, &parts);
            if warnings.is_some() && format != Format::V4 {
                assert!(matches!(stored, Err(SetError::NoWarnings(_))), "{tag}");
                continue;
            }
            assert!(
                matches!(stored, Ok(Stored::Yes(stored)) if stored == format),
                "{tag}"
            );
            let got = cache.get("t", &hash(), None).unwrap().unwrap();
            let expected = (format == Format::V4).then_some(warnings.unwrap_or(b"[]"));
            assert_eq!(got.warnings(), expected, "{tag}");
        }
    }
    let cache = cache.with_version("py314_kida0_12_0_ast2_warn1".parse().unwrap());
    let parts = |warnings| Parts {
        code: CODE,
        warnings: Some(warnings),
        ..Parts::default()
    };
    let refused = cache.set("t", &hash(), None, &parts(b"{}"));
    assert!(matches!(refused, Err(SetError::Warnings(_))));
}

#[test]
fn the_code_of_an_interpreter_that_is_not_known_is_taken_as_it_is() {
    let (dir, cache) = cache();
    let cache = cache.with_version("py399_kida9_0_0_ast9".parse().unwrap());
    let parts = Parts {
        code: b"\xe3 of a format to come",
        ..Parts::default()
    };
    assert!(matches!(
        cache.set("t", &hash(), None, &parts),
        Ok(Stored::Yes(_))
    ));
    let got = cache.get("t", &hash(), None).unwrap().unwrap();
    assert_eq!(got.code(), parts.code);
    assert_eq!(names(dir.path()).len(), 1);
}

#[test]
fn what_get_would_remove_is_not_stored() {
    let (dir, cache) = cache();
    let set = |parts: Parts<'_>| cache.set("t", &hash(), None, &parts).unwrap_err();
    assert!(matches!(set(Parts::default()), SetError::Code(_)));
    let bad = Some(&b"?"[..]);
    let parts = Parts {
        code: CODE,
        precomputed: bad,
        ..Parts::default()
    };
    assert!(matches!(set(parts), SetError::Precomputed(_)));
    let parts = Parts {
        code: CODE,
        ast: bad,
        ..Parts::default()
    };
    assert!(matches!(set(parts), SetError::Ast(_)));
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_write_error_is_swallowed_and_leaves_no_temporary_file() {
    let (dir, cache) = cache();
    let parts = Parts {
        code: CODE,
        ..Parts::default()
    };
    let not_stored = |name: &str| {
        let stored = cache.set(name, &hash(), None, &parts).unwrap();
        assert!(matches!(stored, Stored::No(_)), "{name}");
    };
    not_stored(&"x".repeat(300));
    not_stored("a\0b");
    // The rename fails: a directory is in the way.
    let path = cache.path("t", &hash(), None).unwrap();
    fs::create_dir(&path).unwrap();
    not_stored("t");
    let left = names(dir.path());
    assert_eq!(left, [path.file_name().unwrap().to_str().unwrap()]);
    // The directory is gone.
    fs::remove_dir_all(dir.path()).unwrap();
    not_stored("u");
}

#[test]
fn a_file_being_written_has_a_temporary_name_of_the_engines() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let (dir, cache) = cache();
    let parts = Parts {
        code: CODE,
        ..Parts::default()
    };
    let pattern = Pattern::default();
    let (seen, stopped) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !seen.load(Ordering::Relaxed) && !stopped.load(Ordering::Relaxed) {
                for name in names(dir.path()) {
                    let name = OsStr::new(&name);
                    let Some(temporary) = pattern.temporary_name(name) else {
                        assert!(pattern.parse_name(name).is_some(), "{name:?}");
                        continue;
                    };
                    assert_eq!(temporary.engine, Engine::Kida);
                    let final_name = temporary.final_name.unwrap();
                    assert!(pattern.parse_name(final_name).is_some());
                    seen.store(true, Ordering::Relaxed);
                }
            }
        });
        // Until one was seen in passing, within reason.
        for _ in 0..100_000 {
            if seen.load(Ordering::Relaxed) {
                break;
            }
            let stored = cache.set("t", &hash(), None, &parts);
            assert!(matches!(stored, Ok(Stored::Yes(_))));
        }
        stopped.store(true, Ordering::Relaxed);
    });
    assert!(seen.load(Ordering::Relaxed));
    assert_eq!(names(dir.path()).len(), 1);
}

/// Of each kind that the engine's globs could meet.
fn odd_directory() -> (TempDir, BytecodeCache) {
    let (dir, cache) = cache();
    let at = |name: &str| dir.path().join(name);
    for name in [
        "__kida_py314_a_0123456789abcdef.pyc",
        "__kida_py314_kida0_12_0_ast2_a_0123456789abcdef.pyc",
        "__kida_py313_a_0123456789abcdef.pyc",
        "__kida_.pyc",
        "__kida_py314_line\nbreak.pyc",
        "__kida_py314_a_0123456789abcdef.pyc.abcdefgh.tmp",
        "__kida_py314_a.PYC",
        "x__kida_py314_a.pyc",
        "other.txt",
    ] {
        fs::write(at(name), "12345").unwrap();
    }
    fs::create_dir(at("__kida_py314_directory.pyc")).unwrap();
    symlink("nowhere", at("__kida_py314_dangling.pyc")).unwrap();
    symlink("other.txt", at("__kida_py314_link.pyc")).unwrap();
    (dir, cache)
}

#[test]
fn stats_counts_what_matches_the_engines_glob() {
    let (dir, cache) = odd_directory();
    let directory = fs::metadata(dir.path().join("__kida_py314_directory.pyc"))
        .unwrap()
        .len();
    let expected = Stats {
        file_count: 8,
        total_bytes: 6 * 5 + directory,
    };
    assert_eq!(cache.stats().unwrap(), expected);
    drop(dir);
    assert_eq!(cache.stats().unwrap(), Stats::default());
}

#[test]
fn clear_removes_this_interpreters_entries_or_all() {
    let (dir, cache) = odd_directory();
    let before = names(dir.path()).len();
    assert_eq!(cache.clear(true).unwrap(), 5);
    assert!(
        dir.path()
            .join("__kida_py313_a_0123456789abcdef.pyc")
            .exists()
    );
    assert!(
        dir.path().join("other.txt").exists(),
        "a link's target stays"
    );
    assert_eq!(cache.clear(false).unwrap(), 2);
    assert_eq!(names(dir.path()).len(), before - 7);
    assert_eq!(cache.clear(false).unwrap(), 0);
    let other = cache.with_version("py313_kida1_ast2".parse().unwrap());
    fs::write(dir.path().join("__kida_py313_b.pyc"), "").unwrap();
    assert_eq!(other.clear(true).unwrap(), 1);
}

#[test]
fn cleanup_removes_what_is_older_and_lists_it_before() {
    let (dir, cache) = odd_directory();
    let now = SystemTime::now();
    let age = |name: &str, days: u64| {
        let file = fs::File::open(dir.path().join(name)).unwrap();
        file.set_modified(now - Duration::from_secs(days * 86400))
            .unwrap();
    };
    age("__kida_py313_a_0123456789abcdef.pyc", 31);
    age("__kida_.pyc", 31);
    age("__kida_py314_a_0123456789abcdef.pyc", 29);
    age("other.txt", 31);
    let clock = ManualClock::new(now);
    let victims = cache.victims(DEFAULT_MAX_AGE, &clock).unwrap();
    let found: Vec<_> = victims
        .iter()
        .map(|victim| {
            (
                victim.path.file_name().unwrap().to_str().unwrap(),
                victim.size,
            )
        })
        .collect();
    // A link is as old as what it leads to, for the engine follows it.
    let expected = [
        ("__kida_.pyc", 5),
        ("__kida_py313_a_0123456789abcdef.pyc", 5),
        ("__kida_py314_link.pyc", 5),
    ];
    assert_eq!(found, expected);
    assert_eq!(
        cache.stats().unwrap().file_count,
        8,
        "listing removes nothing"
    );
    assert_eq!(cache.cleanup(DEFAULT_MAX_AGE, &clock).unwrap(), 3);
    assert_eq!(cache.cleanup(DEFAULT_MAX_AGE, &clock).unwrap(), 0);
    clock.advance(Duration::from_secs(2 * 86400));
    assert_eq!(cache.cleanup(DEFAULT_MAX_AGE, &clock).unwrap(), 1);
    assert_eq!(cache.cleanup(Duration::MAX, &SystemClock).unwrap(), 0);
}

#[test]
fn a_directory_that_cannot_be_listed_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let cache = BytecodeCache::existing(&file, Pattern::default());
    assert!(cache.stats().is_err());
    assert!(cache.clear(false).is_err());
}
