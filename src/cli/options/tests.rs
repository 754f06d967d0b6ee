//! Layers, their order, their errors, and the way back into arguments.

use std::collections::HashMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use clap::Parser;

use super::*;
use crate::config::{Durability, KeepFree};

#[derive(Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(flatten)]
    options: MountOptions,
}

fn options<T: Into<OsString> + Clone>(arguments: &[T]) -> MountOptions {
    Line::try_parse_from(arguments.iter().cloned())
        .unwrap()
        .options
}

/// Resolves with these variables only; no file of the machine is read.
fn with(arguments: &[&str], variables: &[(&str, &str)]) -> Result<ResolvedConfig, OptionError> {
    let mut variables: HashMap<_, _> = variables.iter().copied().collect();
    variables.entry("KIDAFS_CONFIG").or_insert("/dev/null");
    resolve_in(&options(arguments), &|name| {
        variables.get(name).map(OsString::from)
    })
}

fn sentence(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    with(arguments, variables).unwrap_err().to_string()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn with_file(text: &str) -> Result<ResolvedConfig, OptionError> {
    let file = file(text);
    with(&[], &[("KIDAFS_CONFIG", file.path().to_str().unwrap())])
}

#[test]
fn without_a_layer_the_defaults_apply() {
    let resolved = with(&[], &[]).unwrap();
    assert_eq!(resolved.config, Config::default());
    assert_eq!(resolved.settings.len(), KEYS.len());
    assert!(
        resolved
            .settings
            .values()
            .all(|s| s.origin == Origin::Default)
    );
    assert_eq!(resolved.settings["max-age"].value, "30d");
}

#[test]
fn the_strongest_layer_wins_and_is_named() {
    let file =
        file("# first\nmemory = \"1MiB\"\nstaging = \"20MiB\"\nthreads = 3\npoll = \"1ms\"\n");
    let path = file.path().to_str().unwrap();
    let resolved = with(
        &["--memory", "4MiB", "-o", "memory=3MiB,staging=40MiB"],
        &[
            ("KIDAFS_CONFIG", path),
            ("KIDAFS_MEMORY", "2MiB"),
            ("KIDAFS_STAGING", "30MiB"),
            ("KIDAFS_THREADS", "4"),
        ],
    )
    .unwrap();
    let config = &resolved.config;
    assert_eq!(config.memory, 4 << 20);
    assert_eq!(config.staging, 40 << 20);
    assert_eq!(config.threads, 4);
    assert_eq!(config.poll, Duration::from_millis(1));
    let origin = |name| resolved.settings[name].origin.to_string();
    assert_eq!(origin("memory"), "command line");
    assert_eq!(origin("staging"), "mount option -o");
    assert_eq!(origin("threads"), "variable KIDAFS_THREADS");
    assert_eq!(origin("poll"), format!("{path}:5"));
    assert_eq!(origin("entry-timeout"), "default");
}

#[test]
fn every_layer_sets_every_option() {
    let values = [
        ("backing", "/srv/cache"),
        ("memory", "1MiB"),
        ("staging", "32MiB"),
        ("max-size", "2GiB"),
        ("max-entries", "7"),
        ("max-entry", "1MiB"),
        ("max-age", "2d"),
        ("superseded-grace", "off"),
        ("sources", "off"),
        ("orphaned-grace", "4h"),
        ("foreign-age", "3d"),
        ("stale-temp", "2h"),
        ("keep-free", "7.5%"),
        ("sweep-interval", "5s"),
        ("entry-timeout", "1s"),
        ("durability", "power"),
        ("pattern", "x_{version}_{name}_{hash}.bin"),
        ("read-only", "true"),
        ("adopt", "true"),
        ("allow-other", "true"),
        ("trust-group", "true"),
        ("seal-key", "/etc/kidafs.key"),
        ("xattrs", "true"),
        ("warm", "true"),
        ("threads", "5"),
        ("poll", "1ms"),
        ("latency", "off"),
        ("supervise", "false"),
        ("confine", "false"),
        ("log-file", "/var/log/kidafs.log"),
        ("remote", "file:///packs"),
        ("remote-namespace", "shop"),
        ("remote-trust", "RWQx"),
        ("remote-sign-key", "/etc/kidafs/ci.key"),
        ("remote-unsigned", "true"),
        ("remote-version-tag", "py314"),
        ("remote-endpoint", "http://localhost:1"),
        ("remote-region", "eu-central-1"),
        ("remote-path-style", "true"),
        ("remote-ca-file", "/etc/kidafs/ca.pem"),
        ("remote-timeout", "5s"),
        ("remote-connect-timeout", "1s"),
        ("remote-expire", "30d"),
        ("remote-option", "aws_skip_signature=true"),
        ("remote-interval", "10s"),
        ("remote-wait", "2s"),
    ];
    assert_eq!(values.len(), KEYS.len());
    let line: Vec<_> = values.iter().map(|(k, v)| format!("--{k}={v}")).collect();
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let expected = with(&line, &[]).unwrap().config;
    assert_eq!(expected.durability, Durability::Power);
    assert_eq!(expected.keep_free, KeepFree::Percent(7.5));

    let variables: Vec<_> = values
        .iter()
        .map(|(k, v)| (format!("KIDAFS_{}", k.to_uppercase().replace('-', "_")), *v))
        .collect();
    let variables: Vec<_> = variables.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    assert_eq!(with(&[], &variables).unwrap().config, expected);

    let fstab: Vec<_> = values
        .iter()
        .map(|(k, v)| format!("{}={v}", k.replace('-', "_")))
        .collect();
    assert_eq!(
        with(&["-o", &fstab.join(",")], &[]).unwrap().config,
        expected
    );

    let toml: String = values
        .iter()
        .map(|(k, v)| format!("{k} = \"{v}\"\n"))
        .collect();
    assert_eq!(with_file(&toml).unwrap().config, expected);
}

#[test]
fn a_switch_can_be_taken_back() {
    let variables = [("KIDAFS_WARM", "1")];
    assert!(with(&[], &variables).unwrap().config.warm);
    assert!(!with(&["--warm=false"], &variables).unwrap().config.warm);
    assert!(with(&["--warm"], &[]).unwrap().config.warm);
}

#[test]
fn the_last_of_two_equal_options_wins() {
    let config = with(&["--memory=1MiB", "--memory=2MiB"], &[])
        .unwrap()
        .config;
    assert_eq!(config.memory, 2 << 20);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let resolved = resolve_in(&options::<&str>(&[]), &|name| {
        let value = match name {
            "KIDAFS_CONFIG" => "/dev/null",
            _ => return None,
        };
        Some(value.into())
    });
    assert_eq!(resolved.unwrap().config, Config::default());
}

#[test]
fn files_may_use_the_types_of_toml() {
    let config = with_file("warm = true\nthreads = 3\nmemory = 4096\nmax_entries = 1_000\n")
        .unwrap()
        .config;
    assert!(config.warm);
    assert_eq!(
        (config.threads, config.memory, config.max_entries),
        (3, 4096, 1000)
    );
}

#[test]
fn what_fstab_says_to_others_is_ignored() {
    let text = "defaults,rw,noatime,nosuid,nodev,noexec,_netdev,nofail,user,user=ada,x-systemd.automount,comment=hello,noauto,,";
    assert_eq!(with(&["-o", text], &[]).unwrap().config, Config::default());
    assert!(with(&["-o", "ro"], &[]).unwrap().config.read_only);
    assert!(
        with(&["-o", "allow_other"], &[])
            .unwrap()
            .config
            .allow_other
    );
    let path = with(&["-o", r"backing=/srv/a\,b\\c,warm"], &[])
        .unwrap()
        .config;
    assert_eq!(path.backing, Some(PathBuf::from(r"/srv/a,b\c")));
    assert!(path.warm);
}

#[test]
fn errors_name_the_option_the_value_and_the_source() {
    assert_eq!(
        sentence(&["--max-size", "lots"], &[]),
        "max-size \"lots\" (from command line) is not a size; write a number and a unit, such as 64MiB, 1GiB or 500MB"
    );
    assert_eq!(
        sentence(&[], &[("KIDAFS_MAX_AGE", "soon")]),
        "max-age \"soon\" (from variable KIDAFS_MAX_AGE) is not a time; write a number and a unit, such as 60s, 1h or 30d, or off"
    );
    assert_eq!(
        sentence(&["-o", "durability=disk"], &[]),
        "durability \"disk\" (from mount option -o) is none of async, crash, power"
    );
    let file = file("\n\nmemory = \"-3\"\n");
    let path = file.path().to_str().unwrap();
    assert_eq!(
        sentence(&[], &[("KIDAFS_CONFIG", path)]),
        format!(
            "memory \"-3\" (from {path}:3) is not a size; write a number and a unit, such as 64MiB, 1GiB or 500MB"
        )
    );
}

#[test]
fn unknown_options_name_the_nearest_one() {
    assert_eq!(
        sentence(&["-o", "maxsize=1GiB"], &[]),
        "\"maxsize\" (from mount option -o) is not an option; did you mean max-size?"
    );
    assert_eq!(
        sentence(&["-o", "colour=red"], &[]),
        "\"colour\" (from mount option -o) is not an option; `kidafs mount --help` lists the options"
    );
    let error = with_file("memroy = 1").unwrap_err().to_string();
    assert!(
        error.ends_with(":1) is not an option; did you mean memory?"),
        "{error}"
    );
}

#[test]
fn a_mount_option_without_its_value_is_refused() {
    assert_eq!(
        sentence(&["-o", "memory"], &[]),
        "the mount option memory needs a value; write -o memory=SIZE"
    );
    assert!(sentence(&["-o", "exec"], &[]).contains("always nosuid, nodev and noexec"));
}

#[test]
fn a_pattern_without_its_hash_is_refused() {
    let error = sentence(&["--pattern", "__kida_{version}_{name}.pyc"], &[]);
    assert!(error.starts_with("pattern \"__kida_{version}_{name}.pyc\" (from command line) "));
    assert!(error.contains("{hash}"), "{error}");
}

#[test]
fn impossible_combinations_are_refused() {
    let cases: [(&[&str], &str); 13] = [
        (
            &["--staging=0"],
            "staging 0 (from command line) leaves no room",
        ),
        (
            &["--max-size=0"],
            "max-size 0 (from command line) leaves no room",
        ),
        (
            &["--max-entries=0"],
            "max-entries 0 (from command line) leaves no room",
        ),
        (
            &["--max-entry=0"],
            "max-entry 0 (from command line) leaves no room",
        ),
        (
            &["--max-entry=65MiB"],
            "max-entry 65MiB (from command line) is larger than staging 64MiB (from default)",
        ),
        (
            &["--max-entry=2MiB", "-o", "max_size=1MiB"],
            "max-entry 2MiB (from command line) is larger than max-size 1MiB (from mount option -o)",
        ),
        (
            &["--entry-timeout=1h", "--superseded-grace=1h"],
            "entry-timeout 1h (from command line) is not shorter than superseded-grace 1h (from command line)",
        ),
        (
            &["--max-age=10s"],
            "entry-timeout 1m (from default) is not shorter than max-age 10s (from command line)",
        ),
        (&["--max-age=0s"], "write off to disable the rule"),
        (
            &["--sweep-interval=0s"],
            "sweep-interval 0 (from command line) would sweep",
        ),
        (
            &["--threads=0"],
            "threads 0 (from command line) is not possible",
        ),
        (
            &["--threads=1000"],
            "threads 1000 (from command line) is not possible",
        ),
        (
            &["--poll=1m"],
            "poll 1m (from command line) would keep a CPU busy",
        ),
    ];
    for (arguments, expected) in cases {
        let error = sentence(arguments, &[]);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
}

#[test]
fn what_can_be_is_accepted() {
    let config = with(
        &[
            "--memory=0",
            "--entry-timeout=0",
            "--poll=0",
            "--keep-free=0%",
            "--max-age=off",
        ],
        &[],
    )
    .unwrap()
    .config;
    assert_eq!(config.memory, 0);
    assert_eq!(config.max_age, None);
}

#[test]
fn the_default_entry_size_yields_to_smaller_budgets() {
    let config = with(&["--staging=1MiB"], &[]).unwrap().config;
    assert_eq!(config.max_entry, 1 << 20);
    let config = with(&["--max-size=2MiB"], &[]).unwrap().config;
    assert_eq!(config.max_entry, 2 << 20);
}

#[test]
fn files_are_searched_where_only_the_user_and_root_write() {
    let paths = |variables: &[(&str, &str)]| -> Vec<String> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        file::paths(&|name| variables.get(name).map(OsString::from))
            .iter()
            .map(|candidate| format!("{candidate:?}"))
            .collect()
    };
    let all = paths(&[("HOME", "/home/ada")]);
    assert_eq!(all.len(), 2);
    assert!(all[0].contains("\"/etc/kidafs.toml\""));
    assert!(all[1].contains("\"/home/ada/.config/kidafs.toml\""));
    let all = paths(&[
        ("HOME", "/home/ada"),
        ("XDG_CONFIG_HOME", "/home/ada/.conf"),
    ]);
    assert!(all[1].contains("\"/home/ada/.conf/kidafs.toml\""));
    assert_eq!(paths(&[("HOME", ".")]).len(), 1);
    assert_eq!(
        paths(&[("KIDAFS_CONFIG", "x.toml"), ("HOME", "/home/ada")]).len(),
        1
    );
}

#[test]
fn files_that_cannot_be_trusted_or_read_are_refused() {
    let error = sentence(&[], &[("KIDAFS_CONFIG", "/nowhere/kidafs.toml")]);
    assert!(error.starts_with("the configuration file /nowhere/kidafs.toml cannot be read ("));

    let shared = file("warm = true");
    std::fs::set_permissions(shared.path(), Permissions::from_mode(0o666)).unwrap();
    let error = sentence(&[], &[("KIDAFS_CONFIG", shared.path().to_str().unwrap())]);
    assert!(error.contains("may be written by everybody"), "{error}");

    let error = with_file("memory = \n").unwrap_err().to_string();
    assert!(error.contains(":1 is not TOML: "), "{error}");
    let error = with_file("memory = [1]\n").unwrap_err().to_string();
    assert!(error.contains("more than one value"), "{error}");
    let error = with_file("max-size = 7\nmax_size = 8\n")
        .unwrap_err()
        .to_string();
    assert!(error.contains(" a second time"), "{error}");
    let error = with_file("backing = \"cache\"\n").unwrap_err().to_string();
    assert!(error.contains("write it from /"), "{error}");
}

#[test]
fn a_relative_backing_directory_is_made_absolute() {
    let config = with(&["--backing", "cache"], &[]).unwrap().config;
    let here = std::env::current_dir().unwrap();
    assert_eq!(config.backing, Some(here.join("cache")));
    assert!(sentence(&["--backing", ""], &[]).contains("is no path"));
}

#[test]
fn the_daemon_gets_the_same_options_as_arguments() {
    use std::os::unix::ffi::OsStringExt;

    let odd = OsString::from_vec(b"/srv/a=b \xff,".to_vec());
    let mut line: Vec<OsString> = [
        "--max-age=off",
        "--keep-free=1.25%",
        "--poll=150us",
        "--warm",
    ]
    .map(OsString::from)
    .to_vec();
    line.extend(["--backing".into(), odd.clone()]);
    let first = resolve_in(&options(&line), &|name| match name {
        "KIDAFS_CONFIG" => Some("/dev/null".into()),
        "KIDAFS_THREADS" => Some("7".into()),
        _ => None,
    })
    .unwrap();
    assert_eq!(first.config.backing, Some(PathBuf::from(odd)));

    let elsewhere: Environment<'_> = &|name| match name {
        "KIDAFS_MEMORY" => Some("1MiB".into()),
        "KIDAFS_CONFIG" => Some("/nowhere".into()),
        _ => None,
    };
    let second = resolve_in(&options(&arguments(&first)), elsewhere).unwrap();
    assert_eq!(second, first);
}
