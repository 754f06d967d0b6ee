//! kidafs: a FUSE filesystem that is mounted in place of a template engine's bytecode cache.
//!
//! The crate's map, from the top down. A module imports only what is below it (`tests/docs/map.rs` checks that), and
//! nothing below [`fuse`] knows fuser, the library that speaks the kernel's protocol:
//!
//! | module | what is in it |
//! |---|---|
//! | [`cli`] | the command line: argument handling and printing, one file per command |
//! | [`remote`] | packs, signatures, stores, push, pull, sync (feature `remote`); in processes of its own |
//! | [`server`] | a daemon: puts the pieces below together and serves until the mount's end |
//! | [`daemon`] | a process's life: mounting, readiness, signals, unmounting |
//! | [`fuse`] | the adapter: each callback turns its arguments into calls of [`vfs`], and the result into one reply |
//! | [`wakeup`] | how threads wait for the device: readers, bursts, polling, the pool |
//! | [`vfs`] | what an operation means: inodes, names, staging, commit, attributes |
//! | [`kida`] | [`kida::BytecodeCache`], the engine's own cache class, over any directory |
//! | [`stats`] | what a daemon tells about itself, for daemon and command line alike |
//! | [`evict`] | which entries leave and why: the policy, which is a pure function, and what asks for a sweep |
//! | [`tier`] | where content lives: memory tier, disk tier (backing directory), digests |
//! | [`config`] | options with their defaults |
//! | [`format`](mod@format) | entry framing, file names, marshal streams; no I/O |
//! | [`layout`] | the private folder `.kidafs`: a name for each thing in it |
//! | [`clock`], [`stop`] | the source of time; whether the end of the service has begun |
//! | [`bell`] | wakes a thread that waits for a time or for a call, whatever happens to the clocks |
//! | [`locks`] | locks with ranks, whose order is checked |
//!
//! docs/ARCHITECTURE.md goes on from here: the life of a look-up, a store and an eviction, the states of a file, the
//! locks and the threads.

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
pub mod locks;
#[cfg(feature = "remote")]
pub mod remote;
pub mod server;
pub mod stats;
pub mod stop;
pub mod tier;
pub mod vfs;
pub mod wakeup;
