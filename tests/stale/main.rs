//! Stale is what can be shown to be stale.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../support/mod.rs"]
mod support;
#[allow(unused_imports, reason = "the name until all use the other")]
use support as common;

mod deployments;
mod engines;
mod sources;
