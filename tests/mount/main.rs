//! What a program sees on a mount.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod attributes;
mod backing;
mod commit;
mod engines_run;
mod errors;
mod fallback;
mod life;
mod names;
mod operations;
mod push;
mod tools;
