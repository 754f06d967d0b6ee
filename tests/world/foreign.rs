//! It removes only what it knows to be a cache entry.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use kidafs::evict::Reason;
use rustix::fs::{FlockOperation, flock};

use crate::support::entries::{content, name, stored_digest};
use crate::support::live::{Live, folder, kidafs, store, until};

/// What lies about in a cache directory and is no engine's, or only looks like it.
const FOREIGN: [(&[u8], &[u8]); 19] = [
    (b"app.lock", b""),
    (b"beaker/container_file/a/ab.cache.lock", b""),
    (b"jobs.db", b"SQLite format 3\0 and pages"),
    (b"jobs.db-wal", b"\x37\x7f\x06\x82"),
    (b"page.html", b"<p>the only copy</p>"),
    (b"photos/IMG_0001.JPG", b"\xff\xd8\xff\xe0 JFIF"),
    (b"notes", b"to do"),
    (b".htaccess", b"deny from all"),
    (
        b"CACHEDIR.TAG",
        b"Signature: 8a477f597d28d172789f06886806bc55",
    ),
    (b"numba/f-1.py313.nbi", b"index"),
    (b"caf\xe9.txt", b"not UTF-8 in its name"),
    (
        b"views.py",
        b"from mako import runtime\n\ndef index(): pass\n",
    ),
    (b"legacy.pyc", b"no cache tag in the name"),
    (b"photo.download.tmp", b"half"),
    // An engine's name on somebody else's content.
    (b"__kida_py314_diary_0123456789abcdef.pyc", b"dear diary"),
    (
        b"__jinja2_0123456789abcdef0123456789abcdef01234567.cache",
        b"a list",
    ),
    (b"x.cpython-314.pyc", b"text, and long enough for a header"),
    (
        b"tmpq1w2e3r4",
        b"Python's own name for a temporary file, not Mako's content",
    ),
    (b"deep/er/and/deeper/archive.tar", b"tar"),
];

fn jinja2() -> (String, Vec<u8>) {
    let key = "89abcdef0123456789abcdef0123456789abcdef";
    let mut entry = b"j2\x80\x02K\x05.\x80\x02J\x0e\0\0\x03.\x80\x02X(\0\0\0".to_vec();
    entry.extend(key.bytes());
    entry.extend(b"q\0.");
    entry.extend(&content(7, 700)[8..]);
    (format!("__jinja2_{key}.cache"), entry)
}

fn pyc() -> (String, Vec<u8>) {
    let mut entry = b"\x2b\x0e\r\n\0\0\0\0\0\0\0\x65\x10\0\0\0".to_vec();
    entry.extend(&content(8, 700)[8..]);
    ("pkg/mod.cpython-314.pyc".to_owned(), entry)
}

/// An entry of each engine whose entries leave by age and budget.
fn entries() -> Vec<(String, Vec<u8>)> {
    let kida = (name("a.html", 1), content(1, 700));
    vec![kida, jinja2(), pyc()]
}

fn write(dir: &Path, path: impl AsRef<Path>, bytes: &[u8]) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

fn fill(dir: &Path) {
    for (name, bytes) in FOREIGN {
        write(dir, path(name), bytes);
    }
    for (name, bytes) in entries() {
        write(dir, name, &bytes);
    }
}

fn age(dir: &Path, by: Duration) {
    let then = SystemTime::now() - by;
    let times = fs::FileTimes::new().set_accessed(then).set_modified(then);
    let names = FOREIGN.iter().map(|(name, _)| path(name));
    for path in names.chain(entries().into_iter().map(|(name, _)| name.into())) {
        let file = File::options().append(true).open(dir.join(path));
        file.unwrap().set_times(times).unwrap();
    }
}

fn foreign_is_whole(dir: &Path) {
    for (name, bytes) in FOREIGN {
        let at = dir.join(path(name));
        assert_eq!(
            fs::read(&at).ok().as_deref(),
            Some(bytes),
            "{}",
            at.display()
        );
    }
}

/// A mount whose every rule is due at once.
const HASTY: [&str; 12] = [
    "--entry-timeout=10ms",
    "--max-age=200ms",
    "--superseded-grace=100ms",
    "--orphaned-grace=100ms",
    "--foreign-age=200ms",
    "--stale-temp=200ms",
    "--max-entries=4",
    "--max-size=16KiB",
    "--max-entry=16KiB",
    "--keep-free=99%",
    "--sweep-interval=100ms",
    "--adopt",
];

#[test]
fn no_rule_removes_a_foreign_file_and_every_entry_leaves() {
    let folder = folder();
    let dir = folder.path().join("cache");
    fs::create_dir(&dir).unwrap();
    fill(&dir);
    age(&dir, Duration::from_secs(400 * 24 * 3600));
    let live = Live::start(&dir, &HASTY);
    until("the entries have left", Duration::from_secs(30), || {
        // Not asked of the mount: a look-up is a use.
        live.stats().evictions.values().sum::<u64>() == entries().len() as u64
    });
    let swept = live.stats().sweeps;
    until("more sweeps", Duration::from_secs(30), || {
        live.stats().sweeps > swept + 3
    });
    foreign_is_whole(&dir);
    let stats = live.stats();
    assert_eq!(stats.foreign.files, FOREIGN.len() as u64);
    assert_eq!(stats.quarantined, 0);
    assert!(!stats.evictions.contains_key(&Reason::Corrupt));
    live.unmount();
    foreign_is_whole(&dir);
    for (name, _) in FOREIGN {
        assert_eq!(stored_digest(&dir.join(path(name))), None, "not signed");
    }
}

#[test]
fn what_programs_make_under_foreign_names_stays_and_entries_give_way() {
    let folder = folder();
    let dir = folder.path().join("cache");
    let live = Live::start(&dir, &["--max-entries=8", "--entry-timeout=10ms"]);
    for number in 0..4 {
        fs::write(dir.join(format!("state-{number}.json")), b"{}").unwrap();
    }
    // A lock that is held is one file, whatever is stored beside it.
    let held = File::create(dir.join("app.lock")).unwrap();
    flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
    for number in 0..40 {
        store(&dir, &name("t.html", number), &content(number, 700)).unwrap();
    }
    let other = File::open(dir.join("app.lock")).unwrap();
    let refused = flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap_err();
    assert_eq!(refused, rustix::io::Errno::WOULDBLOCK);
    for number in 0..4 {
        assert_eq!(
            fs::read(dir.join(format!("state-{number}.json"))).unwrap(),
            b"{}"
        );
    }
    drop((held, other));
    live.unmount();
}

#[test]
fn where_only_foreign_files_are_left_a_store_is_refused_and_one_line_says_so() {
    let folder = folder();
    let dir = folder.path().join("cache");
    let live = Live::start(&dir, &["--max-entries=5"]);
    for number in 0..5 {
        store(&dir, &format!("mine-{number}.json"), b"{}").ok();
        fs::rename(
            {
                let temporary = dir.join("x.part");
                fs::write(&temporary, b"{}").unwrap();
                temporary
            },
            dir.join(format!("mine-{number}.json")),
        )
        .ok();
    }
    for _ in 0..3 {
        let error = store(&dir, &name("t.html", 1), &content(1, 700)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }
    assert!(live.stats().budget_out_of_reach);
    let log = live.log();
    let said = log.matches("no cache entries take").count();
    assert_eq!(said, 1, "{log}");
    live.unmount();
}

#[test]
fn files_that_were_there_leave_the_whole_budget_to_the_cache() {
    let folder = folder();
    let dir = folder.path().join("cache");
    fs::create_dir(&dir).unwrap();
    for number in 0..20 {
        fs::write(dir.join(format!("IMG_{number}.JPG")), b"\xff\xd8").unwrap();
    }
    let live = Live::start(&dir, &["--adopt", "--max-entries=10"]);
    for number in 0..30 {
        store(&dir, &name("t.html", number), &content(number, 700)).unwrap();
    }
    assert_eq!(fs::read(dir.join("IMG_0.JPG")).unwrap(), b"\xff\xd8");
    let stats = live.stats();
    assert_eq!(stats.foreign.files, 20);
    assert!(
        stats.disk.files - stats.foreign.files >= 9,
        "{:?}",
        stats.disk
    );
    live.unmount();
}

#[test]
fn a_file_that_was_edited_while_nothing_was_mounted_is_served_as_it_is_now() {
    let folder = folder();
    let dir = folder.path().join("cache");
    let live = Live::start(&dir, &["--adopt"]);
    for name in ["page.html", "settings.ini"] {
        fs::write(dir.join(name), b"before").unwrap();
    }
    store(&dir, "made.json", b"{}").ok();
    live.unmount();
    for name in ["page.html", "settings.ini"] {
        fs::write(dir.join(name), b"edited").unwrap();
    }
    let live = Live::start(&dir, &["--adopt"]);
    for name in ["page.html", "settings.ini"] {
        assert_eq!(fs::read(dir.join(name)).unwrap(), b"edited");
    }
    assert_eq!(live.stats().quarantined, 0);
    live.unmount();
}

/// The command as a user types it, without the tests' own `--adopt`.
fn typed(arguments: &[&str], dir: &Path) -> std::process::Output {
    let mut command: Command = kidafs();
    command.env_remove("KIDAFS_ADOPT").args(arguments).arg(dir);
    command.output().unwrap()
}

fn said(output: &std::process::Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

#[test]
fn a_directory_that_is_no_cache_is_refused_and_nothing_is_left_in_it() {
    let folder = folder();
    type Files = &'static [(&'static str, &'static [u8])];
    let cases: [(&str, Files); 5] = [
        ("templates", &[("a.html", b"hi"), ("b/c.html", b"ho")]),
        ("photos", &[("IMG_1.JPG", b"\xff\xd8")]),
        ("repository", &[(".git/HEAD", b"ref: refs/heads/main")]),
        ("worktree", &[(".git", b"gitdir: ../repository/.git")]),
        (
            "diary",
            &[("__kida_py314_x_0123456789abcdef.pyc", b"dear diary")],
        ),
    ];
    for (case, files) in cases {
        let dir = folder.path().join(case);
        for (name, bytes) in files {
            write(&dir, name, bytes);
        }
        let before = crate::support::entries::names(&dir);
        let output = typed(&["mount"], &dir);
        assert_eq!(output.status.code(), Some(1), "{case}: {}", said(&output));
        assert!(said(&output).contains("--adopt"), "{}", said(&output));
        let run = kidafs()
            .env_remove("KIDAFS_ADOPT")
            .arg("run")
            .arg(&dir)
            .args(["--", "true"])
            .output()
            .unwrap();
        assert_ne!(run.status.code(), Some(0), "{case}: {}", said(&run));
        assert_eq!(crate::support::entries::names(&dir), before, "{case}");
        assert!(!dir.join(".kidafs").exists(), "{case}");
        let live = Live::start(&dir, &["--adopt"]);
        live.unmount();
        // Who has said so once has said so.
        if case == "photos" {
            let output = typed(&["mount"], &dir);
            assert!(output.status.success(), "{}", said(&output));
            assert!(typed(&["umount"], &dir).status.success());
        }
    }
    let before = Path::new("/.kidafs").exists();
    let output = typed(&["mount"], Path::new("/"));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(Path::new("/.kidafs").exists(), before);
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    let output = kidafs()
        .env_remove("KIDAFS_ADOPT")
        .env("HOME", &home)
        .arg("mount")
        .arg(&home)
        .output()
        .unwrap();
    assert!(
        said(&output).contains("home directory"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_cache_with_other_files_is_served_with_one_sentence_about_them() {
    let folder = folder();
    let dir = folder.path().join("cache");
    fs::create_dir(&dir).unwrap();
    fill(&dir);
    let output = typed(&["mount"], &dir);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    // Those with an engine's name are not read before they have to be.
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.contains("that are no cache entries, such as "),
        "{text}"
    );
    foreign_is_whole(&dir);
    assert!(typed(&["umount"], &dir).status.success());
}

#[test]
fn what_the_first_sweep_would_remove_is_shown_before_the_first_mount() {
    let folder = folder();
    let dir = folder.path().join("cache");
    fs::create_dir(&dir).unwrap();
    fill(&dir);
    for number in 0..10 {
        write(&dir, name("t.html", number), &content(number, 700));
    }
    let json = |arguments: &[&str]| -> serde_json::Value {
        let output = typed(arguments, &dir);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let options = ["mount", "--check", "--json", "--max-entries=9"];
    let told = json(&options);
    let planned: Vec<String> = told["plan"]
        .as_array()
        .unwrap()
        .iter()
        .map(|victim| victim["file"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(planned.len(), 4, "{told}");
    assert!(!dir.join(".kidafs").exists());
    let text = said(&typed(&["mount", "--check", "--max-entries=9"], &dir));
    assert!(text.contains("the first sweep would remove"), "{text}");
    let text = said(&typed(&["doctor"], &dir));
    assert!(text.contains("no cache entries"), "{text}");

    let live = Live::start(&dir, &["--max-entries=9", "--sweep-interval=1h"]);
    until("the first sweep", Duration::from_secs(20), || {
        live.stats().sweeps > 0
    });
    for victim in &planned {
        assert!(!dir.join(victim).exists(), "{victim} is still there");
    }
    assert_eq!(
        live.stats().evictions[&Reason::Budget],
        planned.len() as u64
    );
    foreign_is_whole(&dir);
    live.unmount();
}
