//! The bytes, as docs/FORMAT.md gives them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::fleet::{Fleet, assert_same};

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/packs")
        .join(name)
}

#[test]
fn the_pack_of_the_documentation_is_read() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/FORMAT.md")).unwrap();
    let id = text
        .lines()
        .find_map(|line| line.strip_prefix("pack "))
        .unwrap();
    let key = text
        .lines()
        .find_map(|line| line.strip_prefix("key "))
        .unwrap();
    let fleet = Fleet::new(0);
    let folder = fleet.path("packs").join("shop/v1");
    fs::create_dir_all(&folder).unwrap();
    for ending in ["manifest", "body"] {
        let name = format!("{id}.{ending}");
        fs::copy(fixture(&name), folder.join(&name)).unwrap();
    }
    let manifest = fs::read_to_string(fixture(&format!("{id}.manifest"))).unwrap();
    assert!(
        text.contains(manifest.trim_end()),
        "the page shows another manifest"
    );
    let remote = format!("file://{}", fleet.text("packs"));
    let host = fleet.text("host");
    let pulled = fleet
        .run(&[
            "pull",
            &host,
            "--remote",
            &remote,
            "--namespace",
            "shop",
            "--trust",
            key,
            "--json",
        ])
        .json();
    assert_eq!(
        (&pulled["entries"], &pulled["rejected"]),
        (&2.into(), &serde_json::json!({}))
    );
}

#[test]
fn minisigns_own_tool_checks_a_manifest_and_signs_for_us() {
    let fleet = Fleet::new(3);
    let remote = fleet.folder_remote();
    fleet.push(&remote);
    let object = fs::read(&fleet.objects("manifest")[0]).unwrap();
    let ends: Vec<_> = object
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'\n')
        .collect();
    let (lines, text) = object.split_at(ends[3].0 + 1);
    fs::write(fleet.path("m"), text).unwrap();
    fs::write(fleet.path("m.minisig"), lines).unwrap();
    let minisign = |arguments: &[&str]| {
        let mut command = Command::new("minisign");
        let done = command.current_dir(fleet.path("")).args(arguments).output();
        let done = done.expect("the package minisign is installed");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    };
    minisign(&["-Vm", "m", "-p", "ci.pub"]);
    // Its keys serve here, too.
    minisign(&["-GW", "-p", "theirs.pub", "-s", "theirs.key"]);
    let key = fleet.text("theirs.key");
    let cache = fleet.text("cache");
    let url = &remote[1];
    let to = ["--remote", url, "--namespace", "other"];
    fleet
        .run(&[&["push", &cache, "--sign-key", &key], &to[..]].concat())
        .done();
    let trust = fleet.text("theirs.pub");
    let host = fleet.text("host");
    fleet
        .run(&[&["pull", &host, "--trust", &trust], &to[..]].concat())
        .done();
    assert_same(&fleet.path("cache"), &fleet.path("host"));
}
