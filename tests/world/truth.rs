//! What it says is true.
