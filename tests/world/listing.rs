//! A listing is complete.
