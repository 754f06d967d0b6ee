//! Real engines on a real mount: what the first process stores, the second finds.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::support::daemon::folder;
use crate::support::mount::{Mount, done, kidafs, text};
use crate::support::python::{Oracle, dir_arg, unhex};
use crate::support::situation::{AS_NOBODY, USUAL_DEVICE, is_in, is_root, run_test_in};
use kidafs::format::Pattern;
use kidafs::kida::BytecodeCache;
use serde_json::{Value, json};

/// One run of an engine with its cache in `dir`: the report that `tests/python/report.py` describes.
fn render(script: &str, dir: &Path, arguments: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/python")
        .join(script);
    let mut command = Command::new(crate::support::python::python());
    command
        .args(["-B", "-s"])
        .env_remove("PYTHONPATH")
        .env("PYTHONHASHSEED", "0");
    let output = command
        .arg(script)
        .arg(dir)
        .arg("--json")
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn count(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap()
}

/// Every file below `dir`, by its path, with its content; the hidden folder left out.
fn files(dir: &Path) -> BTreeSet<(OsString, Vec<u8>)> {
    let mut found = BTreeSet::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() == ".kidafs" {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            } else {
                let name = entry
                    .path()
                    .strip_prefix(dir)
                    .unwrap()
                    .as_os_str()
                    .to_owned();
                found.insert((name, fs::read(entry.path()).unwrap()));
            }
        }
    }
    found
}

fn assert_no_temporary_file(dir: &Path) {
    for (name, _) in files(dir) {
        let name = name.to_string_lossy().into_owned();
        let is_entry = [".pyc", ".cache", ".py"]
            .iter()
            .any(|end| name.ends_with(end));
        assert!(is_entry && !name.contains(".tmp"), "{name}");
    }
}

/// A process stores, a second finds everything, a third finds it again after a remount, and a fourth in
/// the plain directory; the output is that of a run without kidafs. Returns the entries.
fn stores_once(script: &str, arguments: &[&str]) -> usize {
    let plain = folder();
    let expected = render(script, plain.path(), arguments);
    let mut mount = Mount::new(&[]);
    let first = render(script, mount.dir(), arguments);
    assert_eq!(first["digests"], expected["digests"]);
    for key in ["hits", "misses", "stores", "precomputed"] {
        assert_eq!(first[key], expected[key], "{key}");
    }
    assert!(count(&first, "stores") > 0);
    let stored = files(mount.dir());
    assert_no_temporary_file(mount.dir());
    assert_eq!(stored, files(&mount.backing()), "the same is on disk");
    assert_eq!(mount.stats().staging.files, 0);

    let again = |dir: &Path| {
        let second = render(script, dir, arguments);
        assert_eq!(count(&second, "misses"), 0);
        assert_eq!(count(&second, "stores"), 0);
        assert_eq!(count(&second, "hits"), count(&second, "templates"));
        assert_eq!(second["digests"], expected["digests"]);
        assert_eq!(files(dir), stored);
    };
    again(mount.dir());
    mount.remount();
    again(mount.dir());
    mount.umount();
    again(mount.dir());
    stored.len()
}

#[test]
fn kida() {
    assert!(stores_once("render_kida.py", &[]) >= 50);
}

#[test]
fn kida_with_a_static_context() {
    let entries = stores_once("render_kida.py", &["--static-context"]);
    assert!(entries >= 50);
}

#[test]
fn jinja2() {
    stores_once("render_jinja2.py", &[]);
}

#[test]
fn mako() {
    stores_once("render_mako.py", &[]);
}

#[test]
fn importlib() {
    stores_once("import_pyc.py", &[]);
}

#[test]
fn all_engines_share_one_mount() {
    let mount = Mount::new(&[]);
    let scripts = [
        "render_kida.py",
        "render_jinja2.py",
        "render_mako.py",
        "import_pyc.py",
    ];
    for round in 0..2 {
        std::thread::scope(|scope| {
            for script in scripts {
                let dir = mount.dir();
                scope.spawn(move || {
                    let report = render(script, dir, &[]);
                    assert_eq!(
                        count(&report, "misses") == 0,
                        round == 1,
                        "{script}: {report}"
                    );
                });
            }
        });
    }
    assert_no_temporary_file(mount.dir());
}

#[test]
fn four_processes_at_once() {
    let plain = folder();
    let expected = render("render_kida.py", plain.path(), &[]);
    let mount = Mount::new(&[]);
    for round in 0..2 {
        let report = render("render_kida.py", mount.dir(), &["--procs", "4"]);
        assert_eq!(count(&report, "processes"), 4);
        assert_eq!(report["digests"], expected["digests"]);
        assert_eq!(count(&report, "lost"), 0);
        assert_eq!(count(&report, "misses") == 0, round == 1, "{report}");
    }
    assert_no_temporary_file(mount.dir());
    let names = |dir: &Path| -> Vec<_> { files(dir).into_iter().map(|(name, _)| name).collect() };
    assert_eq!(names(mount.dir()), names(plain.path()));
    assert_eq!(mount.stats().staging.files, 0);
    assert!(
        mount
            .stats()
            .errors
            .keys()
            .all(|errno| errno == "ENODATA" || errno == "ENOENT")
    );
}

/// The project's templates, by name; the same as an engine finds in the folder.
fn templates() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates");
    let texts = files(&root).into_iter();
    texts
        .map(|(name, content)| {
            (
                name.into_string().unwrap(),
                String::from_utf8(content).unwrap(),
            )
        })
        .collect()
}

/// Has kida compile the templates into `dir`, and tells what it handed to its cache for each.
fn compile(oracle: &mut Oracle, dir: &Path) -> Vec<Value> {
    let context = json!({ "site": { "title": "x" }, "xs": [[1, 2], [3]] });
    let answer = oracle.ask(json!({ "do": "compile", "dir": dir_arg(dir), "groups": [
        { "templates": templates(), "lenient": true },
        { "templates": templates(), "lenient": true, "static_context": context },
    ]}));
    let stored = answer["stored"].as_array().unwrap().clone();
    assert!(stored.len() >= 100, "{}", stored.len());
    stored
}

fn part(of: &Value, name: &str) -> Option<Vec<u8>> {
    of[name].as_str().map(unhex)
}

#[test]
fn what_kida_stored_through_the_mount_the_library_reads() {
    let mount = Mount::new(&[]);
    let mut oracle = Oracle::start();
    let stored = compile(&mut oracle, mount.dir());
    // The last one wins where two have the same key.
    let last: BTreeMap<_, _> = stored
        .iter()
        .map(|one| (one["file"].to_string(), one))
        .collect();
    let cache =
        BytecodeCache::existing(mount.dir(), Pattern::default()).with_version(oracle.version());
    for one in last.values() {
        let (name, hash) = (
            one["name"].as_str().unwrap(),
            one["source_hash"].as_str().unwrap(),
        );
        let found = cache.get(name, hash, one["context_hash"].as_str()).unwrap();
        let found = found.unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(found.code(), part(one, "code").unwrap(), "{name}");
        assert_eq!(found.ast(), part(one, "ast").as_deref(), "{name}");
        assert_eq!(
            found.precomputed(),
            part(one, "precomputed").as_deref(),
            "{name}"
        );
    }
    assert_eq!(cache.stats().unwrap().file_count, last.len() as u64);
}

#[test]
fn what_the_command_sets_on_the_mount_kida_loads() {
    let theirs = folder();
    let mut oracle = Oracle::start();
    let stored = compile(&mut oracle, theirs.path());
    let mount = Mount::new(&[]);
    let version = oracle.version();
    // A process for each, so every second one does.
    let stored = stored.iter().step_by(2);
    let mut hits = 0;
    for one in stored {
        let text = |name: &str| one[name].as_str();
        let (name, hash) = (text("name").unwrap(), text("source_hash").unwrap());
        let mut command = kidafs();
        command
            .arg("set")
            .arg(mount.dir())
            .args(["--source-hash", hash]);
        command.args(["--version-tag", version.as_str()]);
        if let Some(context) = text("context_hash") {
            command.args(["--context-hash", context]);
        }
        for section in ["code", "ast", "precomputed"] {
            if let Some(content) = part(one, section) {
                let path = mount.folder().join(section);
                fs::write(&path, content).unwrap();
                command.arg(format!("--{section}")).arg(path);
            }
        }
        done(command.arg("--").arg(name));
        let answer = oracle.ask(json!({
            "do": "get", "dir": dir_arg(mount.dir()), "name": name, "source_hash": hash,
            "context_hash": one["context_hash"], "code": one["code"],
            "expected_ast": one["ast"], "expected_precomputed": one["precomputed"],
        }));
        assert_eq!(answer["hit"], true, "{name}");
        assert_eq!(answer["same"], true, "{name}");
        hits += 1;
    }
    assert!(hits >= 50, "{hits}");
}

#[test]
fn an_ordinary_user_has_the_same_promises() {
    let test = "an_ordinary_user_has_the_same_promises";
    if is_in(test) {
        let mount = Mount::new(&[]);
        assert_ne!(fs::metadata(mount.dir()).unwrap().uid(), 0);
        for misses in [true, false] {
            let report = render("render_kida.py", mount.dir(), &["--procs", "2"]);
            assert_eq!(count(&report, "misses") > 0, misses);
            assert_eq!(count(&report, "lost"), 0);
        }
        assert_no_temporary_file(mount.dir());
        let stats = kidafs()
            .args(["stats", "--json"])
            .arg(mount.dir())
            .output()
            .unwrap();
        assert!(stats.status.success(), "{}", text(&stats));
    } else if is_root() {
        // The interpreter may lie where nobody else can go: the right to read everything is left to them.
        let script = format!(
            "{USUAL_DEVICE} && {AS_NOBODY} --inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
        );
        run_test_in(test, &script, test);
    }
}
