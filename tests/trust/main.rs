//! Whose files, whose rights, whose word.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../common/mod.rs"]
mod common;

mod confined;
mod descriptors;
mod owners;
mod rights;
mod sealed;
mod shares;
mod words;
