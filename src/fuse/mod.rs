//! The FUSE adapter. Each callback turns its arguments into one call of [`crate::vfs`], and the result
//! into one reply; nothing here decides what an operation means.

mod adapter;
mod burst;
mod callbacks;
mod capabilities;
mod convert;
mod notifier;
mod numbers;
mod pool;
mod prune;
mod readers;
mod replies;

pub use adapter::Adapter;
pub use burst::Bursts;
pub use capabilities::Capabilities;
pub use notifier::Notifier;
pub use readers::Readers;
