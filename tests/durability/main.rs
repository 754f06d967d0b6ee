//! What is left after a crash, a power cut or damage, on each filesystem.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod backing;
mod damage;
mod kill;
mod modes;
mod power;
