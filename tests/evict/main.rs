//! What is evicted and when, and that every limit holds.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod budget;
mod day;
mod disk_full;
mod mount;
mod rules;
