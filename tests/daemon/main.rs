//! A process's life: mounting, readiness, signals, supervision, unmounting.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod backing;
mod life;
mod mount;
mod mountinfo;
mod run;
mod supervise;
mod user;

/// Not a test: the daemon that the tests start, a process of this program.
#[test]
fn daemon_process() {
    support::daemon::process::be_daemon();
}
