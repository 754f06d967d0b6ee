//! What the daemon may do.
