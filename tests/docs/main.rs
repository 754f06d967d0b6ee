//! The pages say what is so.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod map;
mod metrics;
mod performance;
mod semantics;
