//! Whose files, whose rights, whose word.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../support/mod.rs"]
mod support;
#[allow(unused_imports, reason = "the name until all use the other")]
use support as common;

mod confined;
mod descriptors;
mod owners;
mod rights;
mod sealed;
mod shares;
mod words;
