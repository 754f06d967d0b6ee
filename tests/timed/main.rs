//! Tests that measure time or processor time: one runs at once, and nothing beside it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

mod burst;
mod many;
mod supervise_kida;

/// Until this is dropped no other test of this program runs. (Cargo runs one program at a time.)
///
/// Beside the time, a process that another test is just starting holds this process's open files for a moment, and
/// with one of a mount makes that busy.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
