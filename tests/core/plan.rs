//! The dry run of a sweep is the sweep.
