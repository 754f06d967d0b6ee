//! A process's life: mounting, readiness, signals, unmounting.

pub mod backing;
mod fusermount;
pub mod mount;
pub mod mountinfo;
pub mod mountpoint;
pub mod unmount;
