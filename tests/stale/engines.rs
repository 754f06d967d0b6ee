//! What is said of a file of each engine.
