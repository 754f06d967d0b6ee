//! The commands that change what is on a mount, with the real binary on a real one.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::support::cli::{PICKLE, code, run, v2};
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
    let mount = sample(&["--max-age=30d", "--superseded-grace=1h"]);
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
    assert_eq!(planned, [("expired", OLD), ("expired", MAKO)]);
    assert!(mount.backing().join(OLD).exists());
    let done = run(&["sweep", "--json", dir(&mount)]).json();
    assert_eq!(done["evicted"], serde_json::json!({ "expired": 2 }));
    assert!(!mount.path(OLD).exists() && !mount.path(MAKO).exists());
    assert!(mount.path(NEW).exists() && mount.path(OTHER_PYTHON).exists());
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
fn who_relies_on_the_default_tag_is_told_of_the_tags_that_are_there() {
    let tagged = "__kida_py314_kida0_12_0_ast2_page.html_0123456789abcdef.pyc";
    let mount = Mount::prepared(&[], |dir| add(dir, tagged, 0));
    let entry = ["page.html", "--source-hash", "0123456789abcdef"];
    let with = |command: &str, more: &[&str]| {
        let mut all = vec![command, dir(&mount)];
        all.extend(entry);
        all.extend(more);
        run(&all)
    };
    let hint = format!(
        "no entry in {} has the default version tag py314; give --version-tag one of those that are there: py314_kida0_12_0_ast2",
        dir(&mount)
    );
    assert_eq!(with("get", &["--code", "-"]).failed(1), hint);
    let ran = with("path", &[]);
    assert_eq!(ran.status, Some(0));
    assert_eq!(ran.err, format!("kidafs: {hint}\n"));
    assert!(
        ran.out
            .ends_with("/__kida_py314_page.html_0123456789abcdef.pyc\n")
    );
    let path = with("path", &["--version-tag", "py314_kida0_12_0_ast2"]).done();
    assert_eq!(Path::new(path.trim_end()), mount.path(tagged));
    // Who names the tag, or has entries of it, knows.
    with("path", &["--version-tag", "py314"]).done();
    add(mount.dir(), NEW, 0);
    with("path", &[]).done();
}
