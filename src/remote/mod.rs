//! The fleet: a cache carried to where processes start.
//!
//! What one host has compiled goes as signed *packs* to a store that all hosts reach, and from there into other
//! hosts' directories. All of it runs in processes of its own beside the daemon, which has no network code: they
//! read and write the directory as an engine does, so a look-up never waits for a network.
//!
//! | module | what is in it |
//! |---|---|
//! | [`sync`] | push and pull for as long as a process lives, with [`breaker`], [`watch`] and [`state`] |
//! | [`push`], [`pull`], [`upkeep`] | what is missing there, what is missing here, what can go |
//! | [`catalogue`] | which packs a namespace has, each checked |
//! | [`local`] | a cache directory, read and written as an engine does |
//! | [`store`] | put, get, list, delete: object stores, WebDAV, folders, Redis |
//! | [`pack`], [`manifest`], [`envelope`], [`keys`] | the bytes, see docs/FORMAT.md |
//! | [`reject`] | why a pack or an entry is not taken |

pub mod breaker;
pub mod catalogue;
pub mod envelope;
pub mod keys;
pub mod local;
pub mod manifest;
pub mod pack;
pub mod pull;
pub mod push;
pub mod reject;
pub mod state;
pub mod store;
pub mod sync;
pub mod upkeep;
pub mod watch;
