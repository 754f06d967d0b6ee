//! Names by which tests know [`super::mount`] from before.

#![allow(unused_imports, reason = "each test program uses a part of it")]

pub(crate) use super::daemon::folder;
pub(crate) use super::entries::{size, store};
pub(crate) use super::mount::{Mount as Live, kidafs, until};
