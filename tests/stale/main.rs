//! Stale is what can be shown to be stale.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../common/mod.rs"]
mod common;

mod deployments;
mod engines;
mod sources;
