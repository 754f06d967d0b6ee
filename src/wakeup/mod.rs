//! How threads wait for a device: which of them read it, what they do in bursts of requests so that waking up
//! costs little, and the pool for requests that may wait for the disk. Nothing here knows FUSE.

mod burst;
mod pool;
mod readers;

pub use burst::Bursts;
pub(crate) use pool::Pool;
pub(crate) use readers::OnErrand;
pub use readers::Readers;
