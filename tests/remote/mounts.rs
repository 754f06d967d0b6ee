//! Mounts that are carried: `mount --remote`, and a remote that is away.

use std::fs;
use std::time::{Duration, Instant};

use crate::fleet::{Fleet, TAG, content, name};
use crate::support::mount::{Mount, wait_for};

fn options(fleet: &Fleet) -> Vec<String> {
    vec![
        "--supervise".to_owned(),
        format!("--remote=file://{}", fleet.text("packs")),
        "--remote-namespace=shop".to_owned(),
        format!("--remote-trust={}", fleet.text("ci.pub")),
        "--remote-interval=200ms".to_owned(),
    ]
}

fn mount(options: &[String]) -> Mount {
    Mount::new(&options.iter().map(String::as_str).collect::<Vec<_>>())
}

fn state(mount: &Mount) -> serde_json::Value {
    let text = fs::read_to_string(mount.path(".kidafs/remote.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn what_one_mount_stores_another_has() {
    let fleet = Fleet::new(3);
    fleet.push(&fleet.folder_remote());
    let mut signing = options(&fleet);
    signing.push(format!("--remote-sign-key={}", fleet.text("ci.key")));
    signing.push("--remote-wait=20s".to_owned());
    let one = mount(&signing);
    assert_eq!(
        fs::read(one.path(name(2))).unwrap(),
        content(2),
        "the mount waited for the first pull"
    );
    let other = mount(&options(&fleet));
    one.commit(&name(9), content(9));
    wait_for("the entry on the other mount", || {
        fs::read(other.path(name(9))).ok()
    });
    let pushed = wait_for("the state", || {
        Some(state(&one)).filter(|state| state["pushed"]["entries"] == 1)
    });
    assert_eq!(pushed["breaker"], "closed");
    assert_eq!(state(&other)["pulled"]["entries"], 4);
    // What goes here does not come back by the same process.
    fs::remove_file(other.path(name(9))).unwrap();
    one.commit(&name(10), content(10));
    wait_for("the next one", || fs::read(other.path(name(10))).ok());
    assert!(!other.path(name(9)).exists());
    assert!(name(9).contains(TAG));
}

#[test]
fn a_remote_that_is_away_holds_nothing_up() {
    let options = [
        "--supervise",
        "--remote=redis://127.0.0.1:1",
        "--remote-namespace=shop",
        "--remote-unsigned",
    ];
    let began = Instant::now();
    let mount = Mount::new(&options);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    mount.commit(&name(1), content(1));
    assert_eq!(fs::read(mount.path(name(1))).unwrap(), content(1));
    let open = wait_for("the breaker to open", || {
        Some(state(&mount)).filter(|state| state["breaker_opened"] == 1)
    });
    assert!(open["errors"].as_u64().unwrap() >= 3);
    assert!(open["last_error"].as_str().unwrap().contains("127.0.0.1:1"));
}
