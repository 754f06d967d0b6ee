//! kidafs: a FUSE filesystem that is mounted in place of a template engine's bytecode cache.
//!
//! The crate's map, from the top down; imports run downwards only, and nothing below [`fuse`]
//! knows FUSE:
//!
//! | module | what is in it |
//! |---|---|
//! | [`cli`] | the command line: argument handling and printing, one file per command |
//! | [`server`] | a daemon: puts the pieces below together and serves until the mount's end |
//! | [`daemon`] | a process's life: mounting, readiness, signals, unmounting |
//! | [`wakeup`] | how threads wait for the device: readers, bursts, polling, the pool |
//! | [`fuse`] | the adapter: each callback turns its arguments into one call of [`vfs`] |
//! | [`vfs`] | what an operation means: inodes, names, staging, commit, attributes |
//! | [`tier`] | where content lives: memory tier, disk tier (backing directory), digests |
//! | [`evict`] | which entries leave and why: pure policy, and the thread that carries it out |
//! | [`kida`] | [`kida::BytecodeCache`], the engine's own cache class, over any directory |
//! | [`format`](mod@format) | entry framing, file names, marshal streams; no I/O |
//! | [`layout`] | the private folder `.kidafs`: a name for each thing in it |
//! | [`stats`] | what a daemon tells about itself, for daemon and command line alike |
//! | [`config`], [`clock`] | options with their defaults; the source of time |

pub mod bell;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod evict;
pub mod format;
pub mod fuse;
pub mod kida;
pub mod layout;
pub mod server;
pub mod stats;
pub mod tier;
pub mod vfs;
pub mod wakeup;
