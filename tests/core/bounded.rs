//! Everything is bounded and is shown.
