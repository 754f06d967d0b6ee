//! The commands: on a plain directory and on a mount.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod mount_change;
mod mount_life;
mod mount_look;
mod read;
mod usage;
mod write;
