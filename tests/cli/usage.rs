//! Wrong usage is told in one sentence and ends with status 2; what is printed about usage is complete.

use std::process::Stdio;

use crate::support::cli::{Cache, Ran, kidafs, run};

#[test]
fn clap_answers_unknown_words_with_status_2() {
    for arguments in [
        &["frobnicate"][..],
        &["ls"],
        &["ls", "--colour", "."],
        &["mount", "--max-sizes", "1GiB", "."],
        &["path", ".", "x.html"],
        &[
            "path",
            ".",
            "x.html",
            "--source-hash",
            "ab",
            "--source",
            "x",
        ],
        &["stats", "--watch", "soon", "."],
        &["cleanup", "--max-age-days", "-1", "."],
        &[
            "path",
            ".",
            "x",
            "--source-hash",
            "ab",
            "--version-tag",
            "3.14",
        ],
        &[],
    ] {
        let ran = run(arguments);
        assert_eq!(ran.status, Some(2), "{arguments:?}: {}", ran.err);
        assert!(!ran.err.is_empty());
    }
}

#[test]
fn options_that_cannot_be_read_are_wrong_usage() {
    let cases: [(&[&str], &str); 6] = [
        (
            &["--max-size", "lots"],
            "max-size \"lots\" (from command line) is not a size; write a number and a unit, such as 64MiB, 1GiB or 500MB",
        ),
        (
            &["-o", "max_age=old"],
            "max-age \"old\" (from mount option -o) is not a time; write a number and a unit, such as 60s, 1h or 30d, or off",
        ),
        (
            &["-o", "nosuid,memroy=1MiB"],
            "\"memroy\" (from mount option -o) is not an option; did you mean memory?",
        ),
        (
            &["--durability", "paranoid"],
            "durability \"paranoid\" (from command line) is none of async, crash, power",
        ),
        (
            &["--threads", "0"],
            "threads 0 (from command line) is not possible; write a number from 1 to 256",
        ),
        (
            &["--max-size", "9999999999GiB"],
            "max-size \"9999999999GiB\" (from command line) is larger than any file can be; write a size below 8EiB",
        ),
    ];
    let dir = Cache::new();
    for (options, sentence) in cases {
        for command in ["mount", "run"] {
            let mut arguments = vec![command];
            arguments.extend(options);
            arguments.push(dir.dir());
            if command == "run" {
                arguments.extend(["--", "true"]);
            }
            assert_eq!(run(&arguments).failed(2), sentence);
        }
    }
}

#[test]
fn a_pattern_without_its_hash_is_wrong_usage() {
    let dir = Cache::new();
    let sentence = run(&["mount", "--pattern", "{version}-{name}", dir.dir()]).failed(2);
    assert!(sentence.contains("{hash}"), "{sentence}");
}

#[test]
fn variables_and_files_are_named_in_errors() {
    let dir = Cache::new();
    let mut command = kidafs(&["ls", dir.dir()]);
    let sentence = Ran::of(command.env("KIDAFS_KEEP_FREE", "120%")).failed(2);
    assert_eq!(
        sentence,
        "keep-free \"120%\" (from variable KIDAFS_KEEP_FREE) leaves no space for entries; write less than 100%"
    );
    let file = dir.add("kidafs.toml", b"\nentry-timeout = \"40d\"\n", 0);
    let mut command = kidafs(&["config"]);
    let sentence = Ran::of(command.env("KIDAFS_CONFIG", &file)).failed(2);
    assert!(
        sentence.starts_with(&format!(
            "entry-timeout 40d (from {}:2) is not shorter than",
            file.display()
        )),
        "{sentence}"
    );
    let mut command = kidafs(&["config"]);
    let sentence = Ran::of(command.env("KIDAFS_CONFIG", "/nowhere.toml")).failed(2);
    assert!(sentence.starts_with("the configuration file /nowhere.toml cannot be read"));
}

#[test]
fn a_file_in_the_current_directory_is_not_read() {
    let dir = Cache::new();
    dir.add("kidafs.toml", b"memory = \"1MiB\"\n", 0);
    let mut command = kidafs(&["config", "--json"]);
    command
        .current_dir(dir.path())
        .env_remove("KIDAFS_CONFIG")
        .env("HOME", "/nonexistent");
    command.env_remove("XDG_CONFIG_HOME");
    assert_eq!(Ran::of(&mut command).json()["memory"]["value"], "64MiB");
}

#[test]
fn config_says_where_each_value_came_from() {
    let dir = Cache::new();
    let file = dir.add("my.toml", b"staging = \"32MiB\"\n", 0);
    let mut command = kidafs(&["config", "--json", "--memory=1MiB", "-o", "ro"]);
    command
        .env("KIDAFS_CONFIG", &file)
        .env("KIDAFS_THREADS", "3");
    let json = Ran::of(&mut command).json();
    assert_eq!(json["memory"]["value"], "1MiB");
    assert_eq!(json["memory"]["origin"], "command-line");
    assert_eq!(json["read-only"]["origin"], "mount-option");
    assert_eq!(json["threads"]["origin"]["variable"], "KIDAFS_THREADS");
    assert_eq!(json["staging"]["origin"]["file"]["line"], 1);
    assert_eq!(json["max-size"]["origin"], "default");
    assert!(json.as_object().unwrap().len() >= 26);
    let text = run(&["config", "--memory=1MiB"]).done();
    assert!(text.lines().any(|line| {
        line.split_whitespace().collect::<Vec<_>>() == ["memory", "1MiB", "command", "line"]
    }));
}

#[test]
fn help_version_man_and_completions_are_printed() {
    let help = run(&["--help"]).done();
    let commands = [
        "mount",
        "umount",
        "run",
        "stats",
        "ls",
        "inspect",
        "verify",
        "clear",
        "cleanup",
        "sweep",
        "hash",
        "path",
        "get",
        "set",
        "warm",
        "config",
        "doctor",
        "completions",
        "man",
    ];
    let man = run(&["man"]).done();
    for command in commands {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command} is not in the help"
        );
        assert!(
            man.contains(&format!("kidafs\\-{command}(1)")),
            "{command} is not in the manual"
        );
        assert!(run(&["man", command]).done().starts_with(".ie"));
        run(&[command, "--help"]).done();
    }
    assert!(run(&["--version"]).done().starts_with("kidafs "));
    assert_eq!(
        run(&["man", "frobnicate"]).failed(1),
        "\"frobnicate\" is no command: `kidafs --help` lists them"
    );
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&["completions", shell]).done().contains("kidafs"));
    }
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let cache = Cache::new();
    for i in 0..3000 {
        cache.add(&format!("__kida_py314_{i}_0123456789abcdef.pyc"), b"", 0);
    }
    for arguments in [
        vec!["ls", cache.dir()],
        vec!["ls", "--json", cache.dir()],
        vec!["man", "mount"],
    ] {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_kidafs"))
            .args(&arguments)
            .env("KIDAFS_CONFIG", "/dev/null")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn commands_of_a_mount_say_that_a_plain_directory_is_none() {
    let dir = Cache::new();
    for arguments in [
        &["sweep"][..],
        &["sweep", "--dry-run"],
        &["stats", "--prometheus"],
    ] {
        let mut all = arguments.to_vec();
        all.push(dir.dir());
        let shown = dir.dir();
        assert_eq!(
            run(&all).failed(1),
            format!("{shown} is not a kidafs mount: run `kidafs mount {shown}` first")
        );
    }
    assert!(
        run(&["umount", dir.dir()])
            .failed(1)
            .contains("is not a kidafs mount")
    );
}

#[test]
fn a_directory_that_is_missing_is_not_made() {
    let dir = Cache::new();
    let missing = dir.path().join("missing");
    let shown = missing.to_str().unwrap();
    for command in ["stats", "ls", "verify", "clear", "cleanup", "warm"] {
        assert_eq!(
            run(&[command, shown]).failed(1),
            format!("{shown} does not exist: name a mount point or a cache directory")
        );
    }
    assert!(!missing.exists());
    let file = dir.add("file", b"", 0);
    let sentence = run(&["ls", file.to_str().unwrap()]).failed(1);
    assert!(sentence.contains("is not a directory"), "{sentence}");
}
