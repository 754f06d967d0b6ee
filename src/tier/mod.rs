//! Where content lives: the memory tier, the disk tier (the backing directory), and digests.
//!
//! Nothing here knows names in a tree or inodes; [`crate::vfs`] decides what goes where.

mod digest;
mod disk;
mod draft;
mod found;
mod memory;
mod quarantine;
mod xattr;

pub use digest::{DIGEST_XATTR, Digest, Digester};
pub use disk::{Directory, DiskFile, DiskTier, Faults, Patience, Stamp, Step};
pub use draft::{Draft, Publish};
pub use found::{Found, FoundKind};
pub use memory::MemoryTier;
