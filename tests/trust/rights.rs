//! Whose rights the daemon has.
