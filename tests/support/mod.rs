//! What the test programs share: a mount in a temporary folder that unmounts on drop, entries made up by number,
//! other users and filesystems, a real Python.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod cli;
pub(crate) mod daemon;
pub(crate) mod entries;
pub(crate) mod live;
pub(crate) mod loopfs;
pub(crate) mod mount;
pub(crate) mod python;
pub(crate) mod situation;
