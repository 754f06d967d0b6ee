//! The FUSE adapter. Each callback turns its arguments into one call of [`crate::vfs`], and the result
//! into one reply; nothing here decides what an operation means.

mod adapter;
mod callbacks;
mod capabilities;
mod convert;
mod notifier;
mod numbers;
mod prune;
mod replies;

pub use adapter::Adapter;
pub use capabilities::Capabilities;
pub use notifier::Notifier;
