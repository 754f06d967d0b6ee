//! The core: its planner, its windows, its locks and its bounds.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../common/mod.rs"]
mod common;

mod bounded;
mod plan;
mod waiting;
mod windows;
