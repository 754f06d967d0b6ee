//! The commands that look at a cache: stats, ls, inspect, verify, hash, path, warm, doctor.

use std::fs;

use crate::support::cli::{Cache, PICKLE, Ran, code, kidafs, run, v2};

const PAGE: &str = "__kida_py314_page.html_0123456789abcdef.pyc";
const NEWER: &str = "__kida_py314_page.html_fedcba9876543210.pyc";
const CONTEXT: &str =
    "__kida_py314_kida0_12_0_ast2_base.html_0123456789abcdef_00000000ffffffff.pyc";

/// Two sources of one template, another with a context, an old entry, and another engine's file.
fn sample() -> Cache {
    let cache = Cache::new();
    cache.add(PAGE, &v2(), 3);
    cache.add(NEWER, &code(), 1);
    cache.add(CONTEXT, &v2(), 40);
    cache.add("mako/base.html.py", b"# Mako", 2);
    cache
}

#[test]
fn stats_counts_as_the_engine_does() {
    let cache = sample();
    let json = run(&["stats", "--json", cache.dir()]).json();
    assert_eq!(json["file_count"], 3);
    assert_eq!(json["total_bytes"], 2 * v2().len() + code().len());
    assert_eq!(json["mounted"], false);
    let text = run(&["stats", cache.dir()]).done();
    assert!(text.starts_with("file_count         3\n"), "{text}");
    assert!(text.contains("plain directory, not mounted"));
}

#[test]
fn ls_has_a_row_an_entry() {
    let cache = sample();
    let text = run(&["ls", cache.dir()]).done();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0],
        [
            "TEMPLATE", "VERSION", "SOURCE", "CONTEXT", "FORMAT", "SIZE", "AGE", "USED", "TIER"
        ]
    );
    let row = |number: usize, columns: std::ops::Range<usize>| rows[number][columns].to_vec();
    assert_eq!(
        row(1, 0..5),
        [
            "base.html",
            "py314_kida0_12_0_ast2",
            "0123456789abcdef",
            "00000000ffffffff",
            "v2"
        ]
    );
    assert_eq!(row(2, 0..5), ["mako/base.html.py", "-", "-", "-", "-"]);
    assert_eq!(
        row(3, 0..5),
        ["page.html", "py314", "fedcba9876543210", "-", "legacy"]
    );
    assert_eq!(row(4, 2..3), ["0123456789abcdef"]);
    assert_eq!(rows[3].last(), Some(&"-"), "a plain directory has no tiers");
    assert!(
        rows[1].contains(&"40d") && rows[3].contains(&"1d"),
        "{text}"
    );
}

#[test]
fn ls_leaves_the_time_of_the_last_use_alone() {
    let cache = sample();
    let read_at = || {
        fs::metadata(cache.path().join(PAGE))
            .unwrap()
            .accessed()
            .unwrap()
    };
    let before = read_at();
    run(&["ls", cache.dir()]).done();
    run(&["verify", cache.dir()]).done();
    assert_eq!(read_at(), before);
}

#[test]
fn ls_sorts() {
    let cache = sample();
    let files = |sort: &str| -> Vec<String> {
        let json = run(&["ls", "--json", "--sort", sort, cache.dir()]).json();
        let rows = json.as_array().unwrap();
        rows.iter()
            .map(|row| row["file"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(files("age"), [NEWER, "mako/base.html.py", PAGE, CONTEXT]);
    assert_eq!(files("used"), [NEWER, "mako/base.html.py", PAGE, CONTEXT]);
    assert_eq!(files("size"), [CONTEXT, PAGE, NEWER, "mako/base.html.py"]);
    assert_eq!(
        files("template"),
        [CONTEXT, "mako/base.html.py", NEWER, PAGE]
    );
    assert_eq!(
        files("version"),
        ["mako/base.html.py", PAGE, NEWER, CONTEXT]
    );
}

#[test]
fn ls_tells_superseded_entries() {
    let cache = sample();
    let json = run(&["ls", "--json", "--superseded", cache.dir()]).json();
    let rows = json.as_array().unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["file"], PAGE);
    assert_eq!(rows[0]["superseded"], true);
    assert_eq!(rows[0]["tier"], serde_json::Value::Null);
}

#[test]
fn ls_takes_another_pattern_and_does_not_send_control_characters() {
    let cache = Cache::new();
    cache.add("c-py314-x\u{1b}[2J.html-0123456789abcdef", &v2(), 0);
    let pattern = "c-{version}-{name}-{hash}";
    let text = run(&["ls", "--pattern", pattern, cache.dir()]).done();
    assert!(text.contains("x\\u{1b}[2J.html  py314"), "{text}");
    let mut command = kidafs(&["ls", "--json", cache.dir()]);
    let json = Ran::of(command.env("KIDAFS_PATTERN", pattern)).json();
    assert_eq!(json[0]["version"], "py314");
}

#[test]
fn what_kidafs_keeps_for_itself_is_no_entry() {
    let cache = Cache::new();
    cache.add(".kidafs/lock", b"1", 0);
    cache.add("deeper/.kidafs/x", b"1", 0);
    std::os::unix::fs::symlink("/etc", cache.path().join("link")).unwrap();
    let json = run(&["ls", "--json", cache.dir()]).json();
    assert_eq!(json.as_array().unwrap().len(), 1);
}

#[test]
fn inspect_describes_an_entry() {
    let cache = sample();
    let file = cache.path().join(PAGE);
    let json = run(&["inspect", "--json", file.to_str().unwrap()]).json();
    assert_eq!(json["template"], "page.html");
    assert_eq!(json["format"], "v2");
    assert_eq!(json["sections"][0]["size_bytes"], code().len());
    assert_eq!(json["sections"][1]["section"], "ast");
    assert_eq!(json["sections"][1]["size_bytes"], PICKLE.len());
    assert_eq!(json["code"]["name"], "<module>");
    assert_eq!(json["code"]["filename"], "page.html");
    assert_eq!(json["code"]["functions"][0]["name"], "render");
    assert_eq!(json["code"]["functions"][0]["locals"][0], "ctx");
    let text = run(&["inspect", file.to_str().unwrap()]).done();
    assert!(text.contains("code <module> (page.html, line 1)"), "{text}");
    assert!(text.contains("  code render (page.html, line 1)"), "{text}");
    assert!(text.contains("    constants: "), "{text}");
}

#[test]
fn inspect_refuses_what_is_no_entry() {
    let cache = Cache::new();
    let text = cache.add("notes.txt", b"hello", 0);
    let sentence = run(&["inspect", text.to_str().unwrap()]).failed(1);
    assert!(
        sentence.starts_with(&format!("{} is not an entry: ", text.display())),
        "{sentence}"
    );
    let cut = cache.add("cut.pyc", &code()[..100], 0);
    let sentence = run(&["inspect", cut.to_str().unwrap()]).failed(1);
    assert!(sentence.contains("does not unmarshal"), "{sentence}");
    let sentence = run(&["inspect", "/nowhere.pyc"]).failed(1);
    assert!(
        sentence.starts_with("cannot read /nowhere.pyc: "),
        "{sentence}"
    );
}

#[test]
fn verify_passes_what_is_whole() {
    let cache = sample();
    assert_eq!(
        run(&["verify", cache.dir()]).done(),
        "4 files checked, 0 of them with a digest, 0 bad\n"
    );
    let json = run(&["verify", "--json", cache.dir()]).json();
    assert_eq!(json["checked"], 4);
    assert_eq!(json["bad"].as_array().unwrap().len(), 0);
}

#[test]
fn verify_names_each_bad_entry_and_removes_it_on_demand() {
    let cache = sample();
    let cut = "__kida_py314_cut.html_0123456789abcdef.pyc";
    let torn = "__kida_py314_torn.html_0123456789abcdef.pyc";
    cache.add(cut, &v2()[..50], 0);
    cache.add(torn, b"", 0);
    cache.add(&format!("{cut}.a1_b2c3d.tmp"), b"half", 0);
    let ran = run(&["verify", cache.dir()]);
    assert_eq!((ran.status, ran.err.as_str()), (Some(1), ""));
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(
        lines[0].starts_with(&format!("{cut}: the code section is truncated")),
        "{}",
        ran.out
    );
    assert!(
        lines[1].starts_with(&format!("{torn}: the entry is empty")),
        "{}",
        ran.out
    );
    assert_eq!(lines[2], "6 files checked, 0 of them with a digest, 2 bad");

    let ran = run(&["verify", "--remove", "--json", cache.dir()]);
    assert_eq!(ran.status, Some(1));
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["bad"][0]["removed"], true);
    assert!(!cache.path().join(cut).exists() && !cache.path().join(torn).exists());
    assert!(cache.path().join(PAGE).exists());
    run(&["verify", cache.dir()]).done();
}

#[test]
fn verify_judges_nothing_that_this_release_does_not_know() {
    let cache = sample();
    let v4 = |warnings: &[u8]| {
        let mut entry = b"\x02KDA\x01\0\0\0\xe3\0\0\0\0".to_vec();
        entry.extend((warnings.len() as u32).to_le_bytes());
        entry.extend(warnings);
        entry
    };
    // A code object and pickles of an interpreter to come, a format to come, and an engine's warnings to come.
    let mut later = b"\x01KDA\x04\0\0\0\xe3new\x02\0\0\0\x80\x09".to_vec();
    later.extend(b"\x80\x09");
    let known = [
        (
            "__kida_py399_kida9_0_0_ast9_a.html_0123456789abcdef.pyc",
            later,
        ),
        (
            "__kida_py314_kida9_0_0_ast9_a.html_0123456789abcdef.pyc",
            b"\x07KDA\xff\xff\xff\xff".to_vec(),
        ),
        (
            "__kida_py399_kida9_0_0_ast2_warn2_a.html_0123456789abcdef.pyc",
            v4(b"{\"new\":1}"),
        ),
    ];
    for (name, content) in &known {
        cache.add(name, content, 0);
    }
    let json = run(&["verify", "--remove", "--json", cache.dir()]).json();
    assert_eq!(json["bad"], serde_json::json!([]));
    // But a frame that ends too early is one in any release.
    let torn = "__kida_py399_kida9_0_0_ast9_b.html_0123456789abcdef.pyc";
    cache.add(torn, b"\x01KDA\xff\0\0\0\xe3", 0);
    let ran = run(&["verify", "--json", cache.dir()]);
    assert_eq!(ran.status, Some(1));
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["bad"][0]["file"], torn);
}

#[test]
fn verify_compares_the_digest_that_was_stored() {
    use sha2::{Digest, Sha256};

    let cache = sample();
    let path = cache.path().join("mako/base.html.py");
    let set = |digest: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&path, "user.kidafs.sha256", digest, flags)
            .expect("the temporary folder's filesystem has user extended attributes");
    };
    let good = Sha256::digest(b"# Mako");
    set(&good);
    assert!(
        run(&["verify", cache.dir()])
            .done()
            .contains(" 1 of them with a digest, 0 bad")
    );
    // What has not the length of a digest is damage: else whoever cuts one off would have a file taken for a new one.
    let hex: String = good.iter().map(|byte| format!("{byte:02x}")).collect();
    set(hex.as_bytes());
    let ran = run(&["verify", cache.dir()]);
    assert_eq!(ran.status, Some(1));
    assert!(
        ran.out
            .starts_with("mako/base.html.py: its digest is malformed\n"),
        "{}",
        ran.out
    );
    set(&[7; 32]);
    let ran = run(&["verify", cache.dir()]);
    assert_eq!(ran.status, Some(1));
    assert!(
        ran.out
            .starts_with("mako/base.html.py: its content does not match its digest\n"),
        "{}",
        ran.out
    );
}

#[test]
fn hash_is_the_engines() {
    let cache = Cache::new();
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let file = cache.add("a.html", b"abc", 0);
    assert_eq!(
        run(&["hash", file.to_str().unwrap()]).done(),
        format!("{abc}\n")
    );
    let mut command = kidafs(&["hash", "-", "--json"]);
    command.write_stdin("abc");
    assert_eq!(Ran::of(&mut command).json()["source_hash"], abc);
    let latin = cache.add("latin.html", b"\xe4", 0);
    let sentence = run(&["hash", latin.to_str().unwrap()]).failed(1);
    assert!(sentence.contains("is not UTF-8 text"), "{sentence}");
    let sentence = run(&["hash", "/nowhere.html"]).failed(1);
    assert!(
        sentence.starts_with("cannot read /nowhere.html: "),
        "{sentence}"
    );
}

#[test]
fn path_is_where_the_engine_looks() {
    let cache = Cache::new();
    let source = cache.add("page.html", b"abc", 0);
    let source = source.to_str().unwrap();
    let dir = cache.dir();
    assert_eq!(
        run(&["path", dir, "a/b:c.html", "--source", source]).done(),
        format!("{dir}/__kida_py314_a_b_c.html_ba7816bf8f01cfea.pyc\n")
    );
    let json = run(&[
        "path",
        dir,
        "x",
        "--source-hash",
        "0123456789abcdef0123",
        "--context-hash",
        "ffff",
        "--version-tag",
        "py313_kida0_12_0_ast2",
        "--json",
    ])
    .json();
    assert_eq!(
        json["path"],
        format!("{dir}/__kida_py313_kida0_12_0_ast2_x_0123456789abcdef_ffff.pyc")
    );
    assert_eq!(json["exists"], false);
    let sentence = run(&["path", dir, "../x", "--source-hash", "ab"]).failed(1);
    assert!(sentence.contains("'..'"), "{sentence}");
}

#[test]
fn warm_reads_everything() {
    let cache = sample();
    let bytes = 2 * v2().len() + code().len() + 6;
    let json = run(&["warm", "--json", cache.dir()]).json();
    assert_eq!(json["files"], 4);
    assert_eq!(json["bytes"], bytes);
    assert!(run(&["warm", cache.dir()]).done().starts_with("4 files, "));
}

#[test]
fn doctor_names_a_directory_that_everybody_may_write() {
    use std::os::unix::fs::PermissionsExt;

    let cache = Cache::new();
    fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let ran = run(&["doctor", "--json", cache.dir()]);
    assert_eq!(ran.status, Some(1));
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let finding = json
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["check"] == "owner, mode")
        .unwrap();
    assert_eq!(finding["verdict"], "fail");
    assert_eq!(finding["cure"], format!("run `chmod o-w {}`", cache.dir()));
    let text = run(&["doctor", cache.dir()]).out;
    for check in [
        "/dev/fuse",
        "fusermount3",
        "kernel",
        "attributes",
        "free space",
    ] {
        assert!(text.contains(check), "{text}");
    }
}
