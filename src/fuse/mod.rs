//! The FUSE adapter. Each callback turns its arguments into calls of [`crate::vfs`], most into one, and the result
//! into one reply. What an operation means is decided there; here is decided which thread answers.

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
