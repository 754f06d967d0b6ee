//! Entries, streams and names, and the engine's own cache class, compared with the real interpreter and engine.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod cache_differential;
mod cache_directory_differential;
mod cache_table;
mod fixtures;
mod marshal_differential;
mod pickle_differential;
