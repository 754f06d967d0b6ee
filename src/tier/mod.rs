//! Where content lives: the memory tier, the disk tier (the backing directory), and digests.
//!
//! Nothing here knows names in a tree or inodes; [`crate::vfs`] decides what goes where.

mod acl;
mod attributes;
mod content;
mod digest;
mod directory;
mod disk;
mod draft;
mod found;
mod memory;
mod owners;
pub mod private;
mod quarantine;
mod seal;
mod sealing;
mod target;
mod vouch;

pub use content::{DiskFile, Patience, Stamp};
pub use digest::{DIGEST_XATTR, Digest, Digester, Edition, Signature};
pub use directory::{Directory, Id};
pub use disk::{DiskTier, Faults, Step};
pub use draft::{Draft, Publish};
pub use found::{Found, FoundKind};
pub use memory::MemoryTier;
pub use owners::{Stranger, Trusted, Way, permits_strangers, writer};
pub use seal::{KEY_FILE_MAX, KeyError, Keyring, SEAL_LEN, SEAL_XATTR, new_key_file};
pub use sealing::Blessed;
pub use target::{Known, Thing};
