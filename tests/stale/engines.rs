//! What is said of a file of each engine, compared with the real engines under each interpreter that
//! can be found.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kidafs::format::{
    Digests, Engines, File, Fingerprint, Identity, Kind, Mtime, SourceFile, SourceState,
};
use serde_json::Value;

use crate::support::python::{hex, packages, python, pythons};

const ROUNDS: usize = 12;

/// A file's state as a sweep would see it; `None` if it is gone.
fn state(path: &Path, wanted: &Fingerprint) -> Option<SourceState> {
    let metadata = fs::metadata(path).ok()?;
    let content = wanted.needs_content().then(|| fs::read(path).unwrap());
    Some(SourceState {
        mtime: Mtime {
            seconds: metadata.mtime(),
            nanos: metadata.mtime_nsec() as u32,
        },
        size: metadata.len(),
        digests: content.map(|content| Digests::of(&content, [wanted])),
    })
}

fn identify(cache: &Path, path: &str) -> Identity {
    let file = cache.join(path);
    let content = fs::read(&file).unwrap();
    let identified = Engines::default().identify(&File {
        path: Path::new(path),
        content: &content,
        mtime: fs::metadata(&file).unwrap().mtime(),
    });
    identified.unwrap_or_else(|| panic!("{path} is not recognised"))
}

fn source_hex(identity: &Identity) -> Value {
    match &identity.source {
        Some(SourceFile::At(path)) => hex(path.as_os_str().as_bytes()).into(),
        None => Value::Null,
        other => panic!("{other:?}"),
    }
}

/// The readings of a file are more than one loader's, so for these a source counts as fresh that the loader at
/// hand would read otherwise.
fn has_another_reading(path: &str) -> bool {
    [
        "j-package/",
        "j-latin",
        "j-cp",
        "j-shift",
        "j-utf",
        "kida-latin/",
    ]
    .iter()
    .any(|folder| path.starts_with(folder))
}

fn compare(python: &Path, seed: u64) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let mut engines = Command::new(python)
        .args(["-B", "-s"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/engines.py"))
        .arg(folder.path())
        .args([seed.to_string(), ROUNDS.to_string()])
        // Jinja2 and Mako are pure Python: one copy serves each interpreter.
        .env("PYTHONPATH", packages())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut go = engines.stdin.take().unwrap();
    let mut lines = BufReader::new(engines.stdout.take().unwrap()).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("an answer of tests/python/engines.py");
        serde_json::from_str(&line.unwrap()).unwrap()
    };
    let cache = folder.path().join("cache");
    let entries = next();
    let entries = entries.as_object().unwrap();
    for (path, expected) in entries {
        let identity = identify(&cache, path);
        assert_eq!(identity.engine.as_str(), expected["engine"], "{path}");
        assert_eq!(identity.version, expected["version"], "{path}");
        assert_eq!(identity.name, expected["name"], "{path}");
        assert_eq!(source_hex(&identity), expected["source"], "{path}");
        assert!(identity.fingerprint.is_some(), "{path}");
    }
    let mut stale = 0;
    for round in 0..ROUNDS {
        writeln!(go).unwrap();
        let answer = next();
        for (path, engine_would_use) in answer.as_object().unwrap() {
            let identity = identify(&cache, path);
            let fingerprint = identity.fingerprint.unwrap();
            // What was loaded from no file is always as it was.
            let Some(source) = &identity.source else {
                continue;
            };
            let ours = fingerprint
                .matches(&state(source.path(), &fingerprint).unwrap())
                .unwrap();
            let theirs = engine_would_use.as_bool().unwrap();
            stale += usize::from(!ours);
            let agreed = ours == theirs || (ours && has_another_reading(path));
            assert!(
                agreed,
                "{}, round {round}: of {path} kidafs says {ours}, the engine {theirs}",
                python.display()
            );
        }
    }
    drop(go);
    assert!(engines.wait().unwrap().success());
    assert!(stale > 0);
    entries.len()
}

#[test]
fn an_entry_of_each_engine_names_its_source_and_is_fresh_when_the_engine_would_use_it() {
    for (seed, python) in pythons().iter().enumerate() {
        let compared = compare(python, seed as u64);
        println!("{}: {compared} entries", python.display());
    }
}

#[test]
fn a_module_that_mako_generated_has_bytecode_whose_source_lies_in_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let templates = folder.path().join("t");
    fs::create_dir_all(templates.join("blog")).unwrap();
    fs::write(templates.join("blog/post.html"), "one\n").unwrap();
    let done = Command::new(python())
        .args(["-s", "-c"])
        .arg("import sys; from mako.lookup import TemplateLookup as L; L([sys.argv[1]], module_directory=sys.argv[2]).get_template('blog/post.html')")
        .args([&templates, &folder.path().join("c")])
        .env_remove("PYTHONDONTWRITEBYTECODE")
        .env_remove("PYTHONPYCACHEPREFIX")
        .status()
        .unwrap();
    assert!(done.success());
    let bytecode = fs::read_dir(folder.path().join("c/blog/__pycache__"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let path = PathBuf::from("blog/__pycache__").join(bytecode.file_name());
    let identity = identify(&folder.path().join("c"), path.to_str().unwrap());
    let module = Path::new("blog/post.html.py");
    assert_eq!(identity.source, Some(SourceFile::InCache(module.into())));
    assert_eq!(identity.name, "blog/post.html");
    let fingerprint = identity.fingerprint.unwrap();
    let module = folder.path().join("c").join(module);
    let fresh = || fingerprint.matches(&state(&module, &fingerprint).unwrap());
    assert_eq!(fresh(), Some(true));
    fs::write(&module, "x = 1\n").unwrap();
    assert_eq!(fresh(), Some(false));
}

/// What each engine writes lies in one folder; each file's every beginning is judged, as a crash would
/// leave it.
#[test]
fn an_entry_that_was_cut_off_is_never_taken_for_another_engines() {
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new(python())
        .args(["-B", "-s"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/engines.py"))
        .arg(folder.path())
        .args(["0", "0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let cache = folder.path().join("cache");
    let engines = Engines::default();
    let mut seen = 0;
    let mut folders = vec![cache.clone()];
    while let Some(next) = folders.pop() {
        for item in fs::read_dir(next).unwrap() {
            let item = item.unwrap();
            if item.file_type().unwrap().is_dir() {
                folders.push(item.path());
                continue;
            }
            seen += 1;
            let content = fs::read(item.path()).unwrap();
            let path = item.path();
            let path = path.strip_prefix(&cache).unwrap();
            let whole = engines.recognise(path, &content);
            let Kind::Entry(engine) = whole else {
                panic!("{}: {whole:?}", path.display());
            };
            for len in 0..content.len().min(300) {
                let part = engines.recognise(path, &content[..len]);
                let is_right =
                    part == whole || part == Kind::Misformed(engine) || part == Kind::Foreign;
                assert!(is_right, "{}: {part:?} of {len}", path.display());
                engines.identify(&File {
                    path,
                    content: &content[..len],
                    mtime: 0,
                });
            }
            // The same content under a name of nobody's is nobody's.
            assert_eq!(
                engines.recognise(Path::new("notes.txt"), &content),
                Kind::Foreign
            );
        }
    }
    assert!(seen > 50, "{seen}");
}

/// Not what kidafs does but what it cannot help: why a directory is for one configuration.
#[test]
fn two_configurations_that_share_a_directory_get_each_others_code() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(python())
        .args(["-B", "-s"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/share.py"))
        .arg(folder.path())
        .output()
        .unwrap();
    let answers: Value = serde_json::from_slice(&output.stdout).unwrap();
    for engine in ["kida", "jinja2", "mako"] {
        let [shared, own] = &answers[engine].as_array().unwrap()[..] else {
            panic!("{answers}");
        };
        assert_eq!(
            (shared, own),
            (&"Hi <b>".into(), &"Hi &lt;b&gt;".into()),
            "{engine}"
        );
    }
}
