//! What the daemon does to be awake when requests come, and that it does nothing of it otherwise.

use std::fs;
use std::time::Duration;

use crate::alone;
use crate::support::mount::{Mount, wait_for};

const DEVICE: &str = "/dev/cpu_dma_latency";

/// Whether this user may ask for awake CPUs.
fn may_hold() -> bool {
    fs::File::options().write(true).open(DEVICE).is_ok()
}

/// How many CPU-latency requests the daemon holds.
fn held(mount: &Mount) -> usize {
    let descriptors = format!("/proc/{}/fd", mount.pid().as_raw_nonzero());
    let links = fs::read_dir(descriptors).unwrap();
    links
        .filter_map(|link| fs::read_link(link.unwrap().path()).ok())
        .filter(|target| target.as_os_str() == DEVICE)
        .count()
}

fn burst(mount: &Mount) {
    for number in 0..50 {
        mount.commit(&format!("entry{number}"), "content");
    }
}

/// Processor time of all threads of the daemon, in nanoseconds.
fn used(mount: &Mount) -> u64 {
    let tasks = format!("/proc/{}/task", mount.pid().as_raw_nonzero());
    fs::read_dir(tasks)
        .unwrap()
        .map(|task| {
            let numbers = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            numbers.split(' ').next().unwrap().parse::<u64>().unwrap()
        })
        .sum()
}

/// Returns once the daemon has used nothing for a fifth of a second: it would, if it polled.
fn assert_comes_to_rest(mount: &Mount) {
    wait_for("the daemon to rest", || {
        let before = used(mount);
        // What is waited for is that nothing happens.
        std::thread::sleep(Duration::from_millis(200));
        (used(mount) == before).then_some(())
    });
    assert_eq!(held(mount), 0);
}

#[test]
fn awake_in_bursts_at_rest_between_them() {
    let _alone = alone();
    let mount = Mount::new(&[]);
    burst(&mount);
    assert_comes_to_rest(&mount);
    let stats = mount.stats();
    if may_hold() {
        assert!(stats.latency_held_seconds > 0.0, "{stats:?}");
        // The first request of each burst finds nothing held.
        assert!(stats.poll_seconds < 0.1 * stats.latency_held_seconds + 0.01);
    } else {
        assert_eq!(stats.latency_held_seconds, 0.0);
        assert!(stats.poll_seconds > 0.0, "{stats:?}");
    }
}

#[test]
fn without_a_latency_request_it_polls() {
    let _alone = alone();
    let mount = Mount::new(&["--latency", "off"]);
    burst(&mount);
    assert_comes_to_rest(&mount);
    let stats = mount.stats();
    assert_eq!(stats.latency_held_seconds, 0.0);
    assert!(stats.poll_seconds > 0.0, "{stats:?}");
}

#[test]
fn both_can_be_switched_off() {
    let _alone = alone();
    let mount = Mount::new(&["--latency", "off", "--poll", "0"]);
    burst(&mount);
    assert_comes_to_rest(&mount);
    let stats = mount.stats();
    assert_eq!(stats.latency_held_seconds, 0.0);
    assert_eq!(stats.poll_seconds, 0.0);
}

#[test]
fn an_ordinary_user_has_the_same_promises() {
    let _alone = alone();
    crate::support::situation::run_as_ordinary_user();
}
