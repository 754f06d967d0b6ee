//! The commands that change a cache: set, get, clear, cleanup.

use std::fs;

use crate::support::cli::{Cache, PICKLE, code, run};

#[test]
fn what_set_stores_get_gives_back() {
    let files = Cache::new();
    let cache = Cache::new();
    let input = |name: &str, content: &[u8]| {
        let path = files.add(name, content, 0);
        path.to_str().unwrap().to_owned()
    };
    let output = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let source = input("page.html", b"hello {{ name }}");
    let (code_in, pickle_in) = (input("code", &code()), input("pickle", PICKLE));
    let (code_out, ast_out, precomputed_out) = (output("c"), output("a"), output("p"));
    let dir = cache.path().join("new/cache");
    let dir = dir.to_str().unwrap();
    let entry = ["page.html", "--source", &source, "--context-hash", "c0ffee"];

    let mut set = vec!["set", dir];
    set.extend(entry);
    set.extend([
        "--code",
        &code_in,
        "--ast",
        &pickle_in,
        "--precomputed",
        &pickle_in,
        "--json",
    ]);
    let path = run(&set).json()["path"].as_str().unwrap().to_owned();
    assert!(path.ends_with("_c0ffee.pyc"), "{path}");
    assert!(
        fs::read(&path).unwrap().starts_with(b"\x01KDA"),
        "with precomputed values it is v3"
    );

    let mut get = vec!["get", dir];
    get.extend(entry);
    get.extend([
        "--code",
        &code_out,
        "--ast",
        &ast_out,
        "--precomputed",
        &precomputed_out,
        "--json",
    ]);
    let json = run(&get).json();
    assert_eq!(json["code_bytes"], code().len());
    assert_eq!(fs::read(&code_out).unwrap(), code());
    assert_eq!(fs::read(&ast_out).unwrap(), PICKLE);
    assert_eq!(fs::read(&precomputed_out).unwrap(), PICKLE);
    assert_eq!(
        fs::read_dir(dir).unwrap().count(),
        1,
        "no temporary file is left"
    );
}

#[test]
fn get_without_an_entry_is_a_miss() {
    let cache = Cache::new();
    let out = cache.path().join("out");
    let sentence = run(&[
        "get",
        cache.dir(),
        "page.html",
        "--source-hash",
        "ab",
        "--code",
        out.to_str().unwrap(),
    ])
    .failed(1);
    assert_eq!(
        sentence,
        format!(
            "\"page.html\" is not in {} with that source: `kidafs ls {}` lists what is",
            cache.dir(),
            cache.dir()
        )
    );
    assert!(!out.exists());
}

#[test]
fn set_refuses_what_the_engine_could_not_load() {
    let cache = Cache::new();
    let junk = cache.add("junk", b"junk", 0);
    let sentence = run(&[
        "set",
        cache.dir(),
        "page.html",
        "--source-hash",
        "ab",
        "--code",
        junk.to_str().unwrap(),
    ])
    .failed(1);
    assert!(
        sentence.contains("the code does not unmarshal"),
        "{sentence}"
    );
    assert_eq!(cache.names(), ["junk"]);
    let sentence = run(&[
        "set",
        cache.dir(),
        "page.html",
        "--source-hash",
        "ab",
        "--code",
        "/nowhere",
    ])
    .failed(1);
    assert!(sentence.starts_with("cannot read /nowhere: "), "{sentence}");
}

#[test]
fn set_says_when_an_entry_cannot_be_stored() {
    let cache = Cache::new();
    let code = cache.add("code", &code(), 0);
    let name = "x".repeat(300);
    let sentence = run(&[
        "set",
        cache.dir(),
        &name,
        "--source-hash",
        "ab",
        "--code",
        code.to_str().unwrap(),
    ])
    .failed(1);
    assert!(sentence.contains("too long"), "{sentence}");
    assert_eq!(cache.names(), ["code"]);
}

#[test]
fn what_cannot_be_removed_is_told() {
    let cache = Cache::new();
    cache.add("__kida_py314_a_0123456789abcdef.pyc", b"", 90);
    // The engine's pattern takes it for an entry, and unlink does not.
    cache.add("__kida_folder.pyc/x", b"", 90);
    let ran = run(&["clear", cache.dir()]);
    assert_eq!(ran.out, "1\n");
    assert_eq!(
        ran.failed(1),
        format!(
            "1 entries of {} could not be removed: look at their owner with `ls -l`",
            cache.dir()
        )
    );
}

#[test]
fn clear_removes_what_the_engine_would() {
    let fill = |cache: &Cache| {
        cache.add("__kida_py314_a_0123456789abcdef.pyc", b"", 0);
        cache.add(
            "__kida_py314_kida0_12_0_ast2_a_0123456789abcdef.pyc",
            b"",
            0,
        );
        cache.add("__kida_py313_a_0123456789abcdef.pyc", b"", 0);
        cache.add("other.pyc", b"", 0);
    };
    let cache = Cache::new();
    fill(&cache);
    assert_eq!(
        run(&["clear", "--current-version-only", cache.dir()]).done(),
        "2\n"
    );
    assert_eq!(
        cache.names(),
        ["__kida_py313_a_0123456789abcdef.pyc", "other.pyc"]
    );
    fill(&cache);
    let json = run(&[
        "clear",
        "--current-version-only",
        "--version-tag",
        "py313",
        "--json",
        cache.dir(),
    ])
    .json();
    assert_eq!(json["removed"], 1);
    assert_eq!(run(&["clear", cache.dir()]).done(), "2\n");
    assert_eq!(cache.names(), ["other.pyc"]);
    assert_eq!(run(&["clear", cache.dir()]).done(), "0\n");
}

#[test]
fn cleanup_removes_what_is_old_and_shows_it_before() {
    let cache = Cache::new();
    let old = cache.add("__kida_py314_old_0123456789abcdef.pyc", b"", 31);
    cache.add("__kida_py314_new_0123456789abcdef.pyc", b"", 29);
    cache.add("other.pyc", b"", 90);
    let text = run(&["cleanup", "--dry-run", cache.dir()]).done();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.trim_end().ends_with(old.to_str().unwrap()), "{text}");
    let json = run(&["cleanup", "--dry-run", "--json", cache.dir()]).json();
    assert_eq!(json.as_array().unwrap().len(), 1);
    assert_eq!(json[0]["file"], old.to_str().unwrap());
    assert_eq!(cache.names().len(), 3);
    assert_eq!(run(&["cleanup", cache.dir()]).done(), "1\n");
    assert!(!old.exists());
    assert_eq!(
        run(&["cleanup", "--max-age-days", "28", "--json", cache.dir()]).json()["removed"],
        1
    );
    assert_eq!(cache.names(), ["other.pyc"]);
}
