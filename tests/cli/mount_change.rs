//! The commands that change what is on a mount, with the real binary on a real one.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::support::cli::{Cache, PICKLE, code, run, v2};
use crate::support::mount::Mount;
use rustix::process::Signal;

const OLD: &str = "__kida_py314_page.html_0123456789abcdef.pyc";
const NEW: &str = "__kida_py314_page.html_fedcba9876543210.pyc";
const OTHER_PYTHON: &str = "__kida_py313_page.html_0123456789abcdef.pyc";
const MAKO: &str = "mako/base.html.py";

fn add(dir: &Path, name: &str, days: u64) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, v2()).unwrap();
    let time = SystemTime::now() - Duration::from_secs(days * 86_400 + 60);
    let times = fs::FileTimes::new().set_modified(time).set_accessed(time);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_times(times).unwrap();
}

/// Two sources of one template, an entry of another Python, and another engine's file.
fn plant(dir: &Path) {
    add(dir, OLD, 40);
    add(dir, NEW, 2);
    add(dir, OTHER_PYTHON, 1);
    add(dir, MAKO, 35);
}

/// A mount on which nothing is due unless the options say so.
fn sample(options: &[&str]) -> Mount {
    let mut all = vec![
        "--max-age=off",
        "--superseded-grace=off",
        "--foreign-age=off",
    ];
    all.extend(options);
    Mount::prepared(&all, plant)
}

fn dir(mount: &Mount) -> &str {
    mount.dir().to_str().unwrap()
}

fn names(mount: &Mount) -> Vec<String> {
    let entries = fs::read_dir(mount.dir()).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn clear_removes_what_the_engine_would() {
    let mount = sample(&[]);
    let ran = run(&["clear", "--current-version-only", "--json", dir(&mount)]);
    assert_eq!(ran.json()["removed"], 2);
    assert_eq!(names(&mount), [OTHER_PYTHON, "mako"]);
    assert_eq!(run(&["clear", dir(&mount)]).done(), "1\n");
    assert_eq!(names(&mount), ["mako"]);
    assert!(!mount.backing().join(OTHER_PYTHON).exists());
}

#[test]
fn cleanup_removes_old_entries_after_it_has_shown_them() {
    let mount = sample(&[]);
    let victims = run(&["cleanup", "--dry-run", "--json", dir(&mount)]).json();
    let victims = victims.as_array().unwrap();
    assert_eq!(
        victims.len(),
        1,
        "another engine's file is not the engine's"
    );
    assert_eq!(victims[0]["file"], mount.path(OLD).to_str().unwrap());
    assert_eq!(names(&mount).len(), 4);
    assert_eq!(run(&["cleanup", dir(&mount)]).done(), "1\n");
    assert_eq!(names(&mount), [OTHER_PYTHON, NEW, "mako"]);
    let ran = run(&["cleanup", "--max-age-days=0", "--json", dir(&mount)]);
    assert_eq!(ran.json()["removed"], 2);
}

#[test]
fn sweep_returns_when_the_victims_it_has_shown_are_gone() {
    let mount = sample(&[
        "--max-age=1s",
        "--entry-timeout=10ms",
        "--sweep-interval=1h",
    ]);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let planned = run(&["sweep", "--dry-run", "--json", dir(&mount)]).json();
    let planned: Vec<_> = planned
        .as_array()
        .unwrap()
        .iter()
        .map(|victim| {
            (
                victim["reason"].as_str().unwrap(),
                victim["file"].as_str().unwrap(),
            )
        })
        .collect();
    assert!(planned.contains(&("expired", OLD)), "{planned:?}");
    assert!(mount.backing().join(OLD).exists());
    let done = run(&["sweep", "--json", dir(&mount)]).json();
    assert_eq!(
        done["evicted"],
        serde_json::json!({ "expired": planned.len() })
    );
    for (_, file) in planned {
        assert!(!mount.path(file).exists(), "{file}");
    }
    let before = mount.stats().sweeps;
    assert_eq!(run(&["sweep", dir(&mount)]).done(), "0 evicted\n");
    assert!(mount.stats().sweeps > before);
}

#[test]
fn sweep_says_why_it_cannot() {
    let mount = sample(&["--read-only"]);
    let sentence = run(&["sweep", dir(&mount)]).failed(1);
    assert!(sentence.contains("is served read-only"), "{sentence}");
    let mount = sample(&[]);
    // A stopped daemon answers nobody: the command must not hang with it.
    mount.signal(Signal::STOP);
    let sentence = run(&["sweep", dir(&mount)]).failed(1);
    mount.signal(Signal::CONT);
    assert!(sentence.contains("does not answer"), "{sentence}");
}

#[test]
fn what_set_stores_on_a_mount_get_gives_back() {
    let mount = sample(&[]);
    let input = |name: &str, content: &[u8]| {
        let path = mount.folder().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let output = |name: &str| mount.folder().join(name).to_str().unwrap().to_owned();
    let source = input("a.html", b"hello");
    let (code_in, ast_in) = (input("code", &code()), input("ast", PICKLE));
    let entry = [dir(&mount), "sub/a.html", "--source", &source];
    let with = |command: &str, more: &[&str]| {
        let mut all = vec![command];
        all.extend(entry);
        all.extend(more);
        run(&all)
    };
    let path = with("path", &[]).done();
    let path = Path::new(path.trim_end());
    assert!(!path.exists());
    let stored = with("set", &["--code", &code_in, "--ast", &ast_in, "--json"]).json();
    assert_eq!(stored["format"], "v2");
    assert_eq!(stored["path"], path.to_str().unwrap());
    assert_eq!(with("path", &["--json"]).json()["exists"], true);
    let (code_out, ast_out) = (output("c"), output("a"));
    with("get", &["--code", &code_out, "--ast", &ast_out]).done();
    assert_eq!(fs::read(code_out).unwrap(), code());
    assert_eq!(fs::read(ast_out).unwrap(), PICKLE);
    let backed = mount.backing().join(path.file_name().unwrap());
    assert_eq!(fs::read(backed).unwrap(), fs::read(path).unwrap());
    let sentence = with("get", &["--code", "-", "--context-hash", "c0ffee"]).failed(1);
    assert!(sentence.contains("is not in"), "{sentence}");
}

#[test]
fn without_a_version_tag_the_newest_that_the_directory_uses_is_taken() {
    let hash = "0123456789abcdef";
    let name = |tag: &str| format!("__kida_{tag}_page.html_{hash}.pyc");
    let mount = Mount::prepared(&[], |_| {});
    let path_of = |more: &[&str]| {
        let mut all = vec!["path", dir(&mount), "page.html", "--source-hash", hash];
        all.extend(more);
        run(&all).done().trim_end().to_owned()
    };
    // The oldest engine's where nothing tells.
    assert!(path_of(&[]).ends_with(&name("py314")));
    for tag in [
        "py314",
        "py314_kida0_9_0_ast2",
        "py314_kida0_12_0_ast2",
        "py314_kida0_12_0_ast2_warn1",
    ] {
        add(mount.dir(), &name(tag), 0);
        assert!(path_of(&[]).ends_with(&name(tag)), "{tag}");
    }
    add(mount.dir(), &name("py39"), 0);
    add(mount.dir(), &name("py314t"), 0);
    assert!(path_of(&[]).ends_with(&name("py314_kida0_12_0_ast2_warn1")));
    assert!(path_of(&["--version-tag", "py314"]).ends_with(&name("py314")));
}

#[test]
fn set_writes_and_get_gives_the_warnings_of_an_engine_that_keeps_them() {
    let mount = Mount::prepared(&[], |_| {});
    let files = Cache::new();
    let input =
        |name: &str, content: &[u8]| files.add(name, content, 0).to_str().unwrap().to_owned();
    let warnings =
        br#"[{"code":"K-WARN-001","line":1,"message":"m","suggestion":null,"template":"t"}]"#;
    let code = input("code", &code());
    let given = input("warnings", warnings);
    let entry = [
        dir(&mount),
        "page.html",
        "--source-hash",
        "0123456789abcdef",
    ];
    let with = |command: &str, more: &[&str]| {
        let mut all = vec![command];
        all.extend(entry);
        all.extend(more);
        run(&all)
    };
    let tag = "py314_kida0_13_0_ast2_warn1";
    let set = with(
        "set",
        &[
            "--version-tag",
            tag,
            "--code",
            &code,
            "--warnings",
            &given,
            "--json",
        ],
    );
    let facts = set.json();
    assert_eq!(
        (&facts["format"], &facts["version"]),
        (&"v4".into(), &tag.into())
    );
    // The tag that is there now is taken.
    let out = files.path().join("out");
    let got = with(
        "get",
        &["--code", "/dev/null", "--warnings", out.to_str().unwrap()],
    );
    assert_eq!(got.status, Some(0));
    assert_eq!(fs::read(&out).unwrap(), warnings);
    // Without warnings it is v4 as well, with an empty list.
    let set = with("set", &["--code", &code, "--json"]);
    assert_eq!(set.json()["format"], "v4");
    with(
        "get",
        &["--code", "/dev/null", "--warnings", out.to_str().unwrap()],
    )
    .done();
    assert_eq!(fs::read(&out).unwrap(), b"[]");
    let refused = with(
        "set",
        &[
            "--version-tag",
            "py314",
            "--code",
            &code,
            "--warnings",
            &given,
        ],
    );
    let sentence = refused.failed(1);
    assert!(sentence.contains("keeps no warnings"), "{sentence}");
}
