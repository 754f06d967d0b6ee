//! A cache carried between hosts: packs, stores that no one here wrote, commands, mounts.

#![cfg(feature = "remote")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod fleet;
mod hostile;
mod mounts;
mod packs;
mod stores;
