//! The commands that look at a mount, with the real binary on a real one: what they tell, and that looking is no use.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use crate::support::cli::{Ran, code, kidafs as cli, run, v2};
use crate::support::mount::{Mount, kidafs, wait_for};
use crate::support::situation::is_root;
use kidafs::stats::EntryRow;
use serde_json::Value;

const OLD: &str = "__kida_py314_page.html_0123456789abcdef.pyc";
const NEW: &str = "__kida_py314_page.html_fedcba9876543210.pyc";
const IN_FOLDER: &str = "sub/__kida_py314_base.html_0123456789abcdef_00000000ffffffff.pyc";
const MAKO: &str = "mako/base.html.py";

/// Two sources of one template, another with a context in a folder, and another engine's file; last
/// written and used so many days ago.
fn plant(dir: &Path) {
    for (name, content, days) in [
        (OLD, v2(), 3),
        (NEW, code(), 1),
        (IN_FOLDER, v2(), 5),
        (MAKO, b"# Mako".to_vec(), 2),
    ] {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let time = SystemTime::now() - Duration::from_secs(days * 86_400 + 60);
        let times = fs::FileTimes::new().set_modified(time).set_accessed(time);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_times(times).unwrap();
    }
}

fn sample() -> Mount {
    Mount::prepared(&[], plant)
}

fn dir(mount: &Mount) -> &str {
    mount.dir().to_str().unwrap()
}

/// When each entry was last used, as the daemon tells.
fn uses(mount: &Mount) -> BTreeMap<String, f64> {
    let rows = fs::read_to_string(mount.path(".kidafs/entries.jsonl")).unwrap();
    rows.lines()
        .map(|line| serde_json::from_str::<EntryRow>(line).unwrap())
        .map(|row| (row.path, row.used_unix_seconds))
        .collect()
}

#[test]
fn looking_at_entries_is_no_use_of_them() {
    let mount = sample();
    let before = uses(&mount);
    assert_eq!(before.len(), 4);
    for command in [
        &["stats"][..],
        &["stats", "--json"],
        &["ls"],
        &["ls", "--json"],
        &["verify"],
        &["cleanup", "--dry-run"],
        &["cleanup"],
        &["sweep", "--dry-run"],
        &["doctor"],
    ] {
        let mut all = command.to_vec();
        all.push(dir(&mount));
        run(&all).done();
        assert_eq!(uses(&mount), before, "{command:?}");
        assert_eq!(mount.stats().lookups.hits, 0, "{command:?}");
    }
    // The comparison can fail: this is a use.
    fs::metadata(mount.path(OLD)).unwrap();
    let after = uses(&mount);
    assert!(after[OLD] > before[OLD]);
    assert_eq!(after[NEW], before[NEW]);
}

#[test]
fn what_was_verified_and_then_removed_is_not_held_by_the_kernel() {
    const MANY: u64 = 300;
    let mount = Mount::prepared(&[], |dir| {
        for number in 0..MANY {
            let name = format!("__kida_py314_{number}.html_0123456789abcdef.pyc");
            fs::write(dir.join(name), v2()).unwrap();
        }
    });
    run(&["verify", dir(&mount)]).done();
    assert_eq!(run(&["clear", dir(&mount)]).done(), "300\n");
    // Held, they would keep their content in memory. Asking makes the kernel forget a few generated
    // files too, so it is not asked often.
    let mut asked = 0;
    wait_for("each inode forgotten", || {
        asked += 1;
        assert!(asked < MANY / 4, "they are held");
        let forgotten = mount.stats().requests.get("forget").copied();
        (forgotten.unwrap_or(0) >= MANY).then_some(())
    });
}

#[test]
fn stats_tells_what_the_daemon_does() {
    let mount = sample();
    let json = run(&["stats", "--json", dir(&mount)]).json();
    // As the engine counts: entries at the top alone.
    assert_eq!(json["file_count"], 2);
    assert_eq!(json["total_bytes"], v2().len() + code().len());
    assert_eq!(json["mounted"], true);
    assert_eq!(json["mount_point"], dir(&mount));
    assert_eq!(json["disk"]["files"], 4);
    fs::write(mount.path("a.tmp"), b"x").unwrap();
    fs::rename(mount.path("a.tmp"), mount.path("a")).unwrap();
    let json = run(&["stats", "--json", dir(&mount)]).json();
    assert_eq!(json["commits"], 1);
    assert_eq!(json["requests"]["rename"], 1);
    let kernel = json["kernel"].as_array().unwrap();
    assert!(kernel.contains(&Value::from("readdirplus")), "{kernel:?}");
    let text = run(&["stats", dir(&mount)]).done();
    assert!(text.contains("\ncommits            1\n"), "{text}");
    assert_eq!(text.matches("kernel's cache answers").count(), 1, "{text}");
}

#[test]
fn stats_prometheus_is_the_hidden_file() {
    let mount = sample();
    let series = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
            .filter(|name| !name.contains("_requests_"))
            .collect()
    };
    let printed = series(&run(&["stats", "--prometheus", dir(&mount)]).done());
    let file = series(&fs::read_to_string(mount.path(".kidafs/metrics")).unwrap());
    assert_eq!(printed, file);
    let own = format!(
        "kidafs_tier_files{{mount=\"{}\",tier=\"disk\"}}",
        dir(&mount)
    );
    assert!(printed.contains(&own), "{printed:?}");
}

#[test]
fn stats_watch_draws_again_and_ends_with_its_reader() {
    let mount = sample();
    let mut child = kidafs()
        .args(["stats", "--watch=100ms", "--json", dir(&mount)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let first = next();
    assert_eq!(first["commits"], 0);
    fs::write(mount.path("a.tmp"), b"x").unwrap();
    fs::rename(mount.path("a.tmp"), mount.path("a")).unwrap();
    let mut draws = 0;
    while next()["commits"] != 1 {
        draws += 1;
        assert!(draws < 100, "the commit is never shown");
    }
    drop(lines);
    assert!(child.wait().unwrap().success());
}

#[test]
fn ls_lists_sorts_and_selects() {
    let mount = sample();
    let files = |arguments: &[&str]| -> Vec<String> {
        let mut all = vec!["ls", "--json"];
        all.extend(arguments);
        all.push(dir(&mount));
        let rows = run(&all).json();
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row["file"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(files(&["--sort", "age"]), [NEW, MAKO, OLD, IN_FOLDER]);
    assert_eq!(files(&["--superseded"]), [OLD]);
    fs::read(mount.path(IN_FOLDER)).unwrap();
    assert_eq!(files(&["--sort", "used"])[0], IN_FOLDER);

    let rows = run(&["ls", "--json", dir(&mount)]).json();
    let row = |file: &str| {
        let mut rows = rows.as_array().unwrap().iter();
        rows.find(|row| row["file"] == file).unwrap().clone()
    };
    let read = row(IN_FOLDER);
    assert_eq!(read["template"], "base.html");
    assert_eq!(read["context_hash"], "00000000ffffffff");
    assert_eq!(
        (&read["tier"], &read["format"]),
        (&"memory".into(), &"v2".into())
    );
    assert_eq!(row(MAKO)["template"], Value::Null);
    let text = run(&["ls", dir(&mount)]).done();
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.starts_with("TEMPLATE "), "{text}");
}

#[test]
fn inspect_shows_an_entry_of_a_mount() {
    let mount = sample();
    let path = mount.path(OLD);
    let json = run(&["inspect", "--json", path.to_str().unwrap()]).json();
    assert_eq!(json["template"], "page.html");
    assert_eq!(json["format"], "v2");
    assert_eq!(json["code"]["filename"], "page.html");
    let generated = mount.path(".kidafs/stats.json");
    let sentence = run(&["inspect", generated.to_str().unwrap()]).failed(1);
    assert!(sentence.contains("is not an entry"), "{sentence}");
}

#[test]
fn verify_finds_what_is_bad_on_a_mount() {
    let mount = sample();
    let facts = run(&["verify", "--json", dir(&mount)]).json();
    assert_eq!(facts["checked"], 4);
    assert_eq!(facts["bad"], Value::Array(Vec::new()));

    // Written whole by whoever, and no entry: only its content can tell.
    let torn = "__kida_py314_torn.html_0123456789abcdef.pyc";
    fs::write(mount.path("x.tmp"), &v2()[..40]).unwrap();
    fs::rename(mount.path("x.tmp"), mount.path(torn)).unwrap();
    let ran = run(&["verify", "--json", dir(&mount)]);
    assert_eq!(ran.status, Some(1));
    let facts: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(facts["with_digest"], 5, "{facts}");
    assert_eq!(facts["bad"][0]["file"], torn);
    let ran = run(&["verify", "--remove", dir(&mount)]);
    assert_eq!(ran.status, Some(1));
    assert!(ran.out.contains(" (removed)\n"), "{}", ran.out);
    run(&["verify", dir(&mount)]).done();
}

#[test]
fn verify_tells_what_the_daemon_sets_aside_before_it() {
    let mut mount = sample();
    run(&["verify", dir(&mount)]).done();
    mount.umount();
    let path = mount.path(NEW);
    let mut content = fs::read(&path).unwrap();
    content[20] ^= 1;
    fs::write(&path, content).unwrap();
    mount.mount(&[]);
    let ran = run(&["verify", "--json", dir(&mount)]);
    assert_eq!(ran.status, Some(1), "{}{}", ran.out, ran.err);
    let facts: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(facts["bad"][0]["file"], NEW);
    assert_eq!(facts["checked"], 4);
    assert_eq!(facts["bad"].as_array().unwrap().len(), 1);
    run(&["verify", dir(&mount)]).done();
}

#[test]
fn verify_sees_what_is_on_disk_whatever_is_in_memory() {
    let mount = Mount::backed(&[]);
    let path = mount.commit(NEW, v2());
    assert_eq!(fs::read(&path).unwrap(), v2());
    // Behind the daemon's back, as a failing disk does it.
    let mut content = v2();
    content[20] ^= 1;
    fs::write(mount.backing().join(NEW), content).unwrap();
    assert_eq!(fs::read(&path).unwrap(), v2(), "the page cache is right");
    let ran = run(&["verify", "--json", dir(&mount)]);
    assert_eq!(ran.status, Some(1), "{}{}", ran.out, ran.err);
    let facts: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(facts["bad"][0]["file"], NEW);
    assert!(!path.exists());
    run(&["verify", dir(&mount)]).done();
}

#[test]
fn warm_brings_everything_into_memory() {
    let mount = sample();
    assert_eq!(mount.stats().memory.files, 0);
    let json = run(&["warm", "--json", dir(&mount)]).json();
    assert_eq!((&json["files"], &json["failed"]), (&4.into(), &0.into()));
    assert_eq!(mount.stats().memory.files, 4);
}

#[test]
fn doctor_asks_the_daemon_and_the_kernel() {
    let mount = sample();
    let findings = run(&["doctor", "--json", dir(&mount)]).json();
    let finding = |check: &str| {
        let mut all = findings.as_array().unwrap().iter();
        let found = all.find(|finding| finding["check"] == check);
        found
            .unwrap_or_else(|| panic!("no {check} in {findings}"))
            .clone()
    };
    assert_eq!(finding("trial mount")["verdict"], "ok");
    let agreed = finding("capabilities")["found"]
        .as_str()
        .unwrap()
        .to_owned();
    for name in mount.stats().kernel {
        assert!(agreed.contains(&name), "{name} is not in {agreed}");
    }
    let found = finding("directory")["found"].to_string();
    assert!(found.contains("is served by process"), "{found}");
    let latency = finding("cpu latency");
    let opens = fs::File::options().write(true).open("/dev/cpu_dma_latency");
    assert_eq!(
        latency["verdict"],
        if opens.is_ok() { "ok" } else { "note" }
    );
    assert_eq!(latency["cure"].is_null(), opens.is_ok());
}

#[test]
fn the_numbers_lead_to_files_and_nothing_else() {
    let mount = sample();
    let rows = fs::read_to_string(mount.path(".kidafs/entries.jsonl")).unwrap();
    for line in rows.lines() {
        let row: EntryRow = serde_json::from_str(line).unwrap();
        let numbered = mount.path(format!(".kidafs/by-inode/{}", row.inode));
        assert_eq!(
            fs::read(&numbered).unwrap(),
            fs::read(mount.path(&row.path)).unwrap()
        );
        fs::remove_file(mount.path(&row.path)).unwrap();
    }
    for name in ["0", "1", "2", "3", "x", "18446744073709551616", "999999"] {
        let error = fs::metadata(mount.path(format!(".kidafs/by-inode/{name}"))).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{name}");
    }
    let error = fs::write(mount.path(".kidafs/by-inode/new"), b"").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn another_user_sees_a_shared_mount_and_cannot_have_it_swept() {
    if !is_root() {
        eprintln!("not tested: it takes root to be two users");
        return;
    }
    let mount = Mount::prepared(&["--allow-other"], plant);
    for open in [mount.folder(), mount.dir()] {
        fs::set_permissions(open, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let program = mount.folder().join("kidafs");
    fs::copy(env!("CARGO_BIN_EXE_kidafs"), &program).unwrap();
    let as_nobody = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&program);
        for (name, value) in cli(&[]).get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let output = command
            .args(arguments)
            .arg(mount.dir())
            .uid(65534)
            .gid(65534);
        let output = output.current_dir("/").output().unwrap();
        Ran {
            status: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    };
    assert_eq!(as_nobody(&["stats", "--json"]).json()["disk"]["files"], 4);
    assert_eq!(as_nobody(&["verify", "--json"]).json()["checked"], 4);
    assert_eq!(
        as_nobody(&["sweep"]).failed(1),
        format!(
            "the daemon of {} belongs to another user: only that user or root can make it sweep",
            dir(&mount)
        )
    );
    // What leads past the folders' own rights is not for others.
    let numbers = std::process::Command::new("ls")
        .arg(mount.path(".kidafs/by-inode/4"))
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&numbers.stderr).contains("Permission denied"));
}
