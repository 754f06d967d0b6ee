//! Where content lives: the memory tier, the disk tier (the backing directory), and digests.
//!
//! Nothing here knows names in a tree or inodes; [`crate::vfs`] decides what goes where.

mod attributes;
mod content;
mod digest;
mod directory;
mod disk;
mod draft;
mod found;
mod memory;
pub mod private;
mod quarantine;
mod target;

pub use content::{DiskFile, Patience, Stamp};
pub use digest::{DIGEST_XATTR, Digest, Digester, Edition, Signature};
pub use directory::{Directory, Id};
pub use disk::{DiskTier, Faults, Step};
pub use draft::{Draft, Publish};
pub use found::{Found, FoundKind};
pub use memory::MemoryTier;
pub use target::{Known, Thing};
