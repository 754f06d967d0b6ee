//! What is seen between two steps of one change.
