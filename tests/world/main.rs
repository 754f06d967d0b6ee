//! Promises as the world tries them: other users, clocks, disks, starters, tools.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../support/mod.rs"]
mod support;
#[allow(unused_imports, reason = "the name until all use the other")]
use support as common;

mod ends;
mod foreign;
mod in_the_way;
mod judgement;
mod listing;
mod log;
mod older_python;
mod traces;
mod truth;
mod whole;
