//! It takes nothing along and leaves nothing behind.
