//! Every kind of store, by a server that no one here wrote.

use std::fs;

use crate::fleet::{Fleet, Servers, assert_same};

/// The whole life of a namespace at a remote.
fn lives(remote: &[String]) {
    let fleet = Fleet::new(30);
    let pushed = fleet.push(remote);
    assert_eq!(
        (&pushed["entries"], &pushed["packs"]),
        (&30.into(), &1.into())
    );
    let again = fleet.push(remote);
    assert_eq!(
        (&again["entries"], &again["known"]),
        (&0.into(), &30.into())
    );
    let pulled = fleet.pull("host", remote);
    assert_eq!(pulled["entries"], 30);
    // One listing, and two requests for the pack.
    assert_eq!(pulled["requests"], 3);
    assert_same(&fleet.path("cache"), &fleet.path("host"));
    // Only what is new goes there, and only what is new comes.
    fleet.commit(30);
    assert_eq!(fleet.push(remote)["entries"], 1);
    assert_eq!(fleet.pull("host", remote)["entries"], 1);
    // A snapshot takes the place of all that was there.
    fleet
        .sign(&["push", &fleet.text("cache"), "--snapshot"], remote)
        .done();
    let gone = fleet.trust(&["remote", "gc", "--json"], remote).json();
    assert_eq!(gone["packs"].as_array().unwrap().len(), 2);
    assert_eq!(
        fleet
            .trust(&["remote", "ls", "--json"], remote)
            .json()
            .as_array()
            .unwrap()
            .len(),
        1
    );
    fleet.trust(&["remote", "verify"], remote).done();
    assert_eq!(fleet.pull("other host", remote)["entries"], 31);
    // After that there is nothing.
    let cleared = fleet.sign(&["remote", "clear", "--json"], remote).json();
    assert_eq!(
        (&cleared["removed"], &cleared["epoch"]),
        (&1.into(), &1.into())
    );
    assert_eq!(fleet.pull("third host", remote)["packs"], 0);
    // And from there on it goes on.
    assert_eq!(fleet.push(remote)["entries"], 31);
    assert_eq!(fleet.pull("third host", remote)["entries"], 31);
}

#[test]
fn a_folder_keeps_packs() {
    let folder = tempfile::tempdir().unwrap();
    lives(&[
        "--remote".into(),
        format!("file://{}", folder.path().display()),
    ]);
    assert!(fs::read_dir(folder.path()).unwrap().count() > 0);
}

#[test]
fn redis_keeps_packs_with_and_without_tls() {
    let servers = Servers::start(&["redis"]);
    lives(&["--remote".into(), servers.get("REDIS")]);
    let mut tls = vec!["--remote".into(), format!("{}/1", servers.get("REDISS"))];
    let fleet = Fleet::new(1);
    let refused = fleet.sign(&["push", &fleet.text("cache")], &tls);
    assert!(refused.err.contains("--ca-file"), "{}", refused.err);
    tls.extend(["--ca-file".into(), servers.ca()]);
    lives(&tls);
}

#[test]
fn an_s3_server_keeps_packs() {
    let servers = Servers::start(&["s3"]);
    let keys = [
        "aws_access_key_id=x",
        "aws_secret_access_key=y",
        "aws_region=us-east-1",
    ];
    let mut remote = vec!["--remote".into(), servers.get("S3")];
    remote.extend(["--endpoint".into(), servers.get("S3_ENDPOINT")]);
    for key in keys {
        remote.extend(["--remote-option".into(), key.into()]);
    }
    lives(&remote);
}

#[test]
fn a_web_server_keeps_packs_whether_it_can_list_or_not() {
    let servers = Servers::start(&["https"]);
    for name in ["HTTPS", "HTTPS_PLAIN"] {
        lives(&[
            "--remote".into(),
            servers.get(name),
            "--ca-file".into(),
            servers.ca(),
        ]);
    }
}

#[test]
fn a_redis_that_is_full_or_away_is_an_error_that_says_so() {
    let fleet = Fleet::new(1);
    let away = vec!["--remote".into(), "redis://127.0.0.1:1".into()];
    let said = fleet.trust(&["pull", &fleet.text("host")], &away);
    assert_eq!(said.status, Some(1));
    assert!(
        said.err.contains("start it, or correct the URL"),
        "{}",
        said.err
    );
}
