//! What push, pull, key and remote promise to whoever types them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::fleet::{Fleet, TAG, content, name};

#[test]
fn what_is_here_wins_and_only_versions_in_use_or_given_are_taken() {
    let fleet = Fleet::new(3);
    let remote = fleet.folder_remote();
    let other = name(7).replace(TAG, "py313_kida0_12_0_ast2");
    fs::write(fleet.path("cache").join(&other), content(7)).unwrap();
    fleet.push(&remote);
    fs::create_dir(fleet.path("host")).unwrap();
    fs::write(fleet.path("host").join(name(0)), b"\xe3local").unwrap();
    let pulled = fleet.pull("host", &remote);
    assert_eq!(
        (
            &pulled["entries"],
            &pulled["known"],
            &pulled["other_version"]
        ),
        (&2.into(), &1.into(), &1.into())
    );
    assert_eq!(
        fs::read(fleet.path("host").join(name(0))).unwrap(),
        b"\xe3local"
    );
    let host = fleet.text("host");
    let given = fleet.trust(
        &["pull", &host, "--version-tag", "py313", "--json"],
        &remote,
    );
    assert_eq!(given.json()["entries"], 1);
    assert!(fleet.path("host").join(&other).exists());
}

#[test]
fn only_entries_are_pushed() {
    let fleet = Fleet::new(1);
    let cache = fleet.path("cache");
    fs::write(cache.join("secrets.env"), "x").unwrap();
    fs::write(cache.join(name(5)), b"\0KDA\xff\xff\xff\xffcut off").unwrap();
    let pushed = fleet.push(&fleet.folder_remote());
    assert_eq!(
        (&pushed["entries"], &pushed["skipped"]),
        (&1.into(), &1.into())
    );
}

#[test]
fn nothing_is_signed_or_trusted_by_default() {
    let fleet = Fleet::new(1);
    let url = fleet.folder_remote().remove(1);
    let cache = fleet.text("cache");
    let to = ["--remote", &url, "--namespace", "shop"];
    let said = fleet.run(&[&["push", &cache], &to[..]].concat()).failed(1);
    assert!(said.contains("--sign-key"), "{said}");
    let said = fleet.run(&[&["pull", &cache], &to[..]].concat()).failed(1);
    assert!(said.contains("--trust"), "{said}");
    let said = fleet
        .run(&["pull", &cache, "--remote", &url, "--unsigned"])
        .failed(1);
    assert!(said.contains("--namespace"), "{said}");
    let said = fleet
        .run(&["pull", &cache, "--namespace", "shop", "--unsigned"])
        .failed(1);
    assert!(said.contains("--remote"), "{said}");
}

#[test]
fn keys_rotate_and_each_has_a_name() {
    let fleet = Fleet::new(1);
    let remote = fleet.folder_remote();
    fleet.push(&remote);
    fleet
        .run(&["key", "generate", &fleet.text("new.key")])
        .done();
    fleet.commit(1);
    let (cache, host) = (fleet.text("cache"), fleet.text("host"));
    let (old, new) = (
        format!("old={}", fleet.text("ci.pub")),
        fleet.text("new.pub"),
    );
    let to = [
        "--remote",
        &remote[1],
        "--namespace",
        "shop",
        "--trust",
        &old,
        "--trust",
        &new,
    ];
    let key = fleet.text("new.key");
    let pushed = fleet.run(&[&["push", &cache, "--json", "--sign-key", &key], &to[..]].concat());
    assert_eq!(pushed.json()["entries"], 1);
    let pulled = fleet
        .run(&[&["pull", &host, "--json"], &to[..]].concat())
        .json();
    assert_eq!(pulled["entries"], 2);
    let listed = fleet
        .run(&[&["remote", "ls", "--json"], &to[..]].concat())
        .json();
    let signers: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|pack| &pack["signed_by"])
        .collect();
    assert!(signers.contains(&&"old".into()) && signers.contains(&&"new".into()));
}

#[test]
fn a_secret_key_is_its_owners_alone_and_never_overwritten() {
    let fleet = Fleet::new(0);
    let key = fleet.path("ci.key");
    let mode = fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let said = fleet
        .run(&["key", "generate", &fleet.text("ci.key")])
        .failed(1);
    assert!(said.contains("is there already"), "{said}");
    let number = |file: &str| {
        fleet
            .run(&["key", "show", &fleet.text(file), "--json"])
            .json()
    };
    assert_eq!(number("ci.key")["number"], number("ci.pub")["number"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let said = fleet
        .sign(&["push", &fleet.text("cache")], &fleet.folder_remote())
        .failed(1);
    assert!(said.contains("chmod 600"), "{said}");
}
