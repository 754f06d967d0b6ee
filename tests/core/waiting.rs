//! Nothing waits in the reader's way.
