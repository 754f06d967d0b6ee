//! The core: its planner, its windows, its locks and its bounds.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../support/mod.rs"]
mod support;
#[allow(unused_imports, reason = "the name until all use the other")]
use support as common;

mod bounded;
mod descriptors;
mod faults;
mod model;
mod modelled;
mod plan;
mod waiting;
mod windows;
