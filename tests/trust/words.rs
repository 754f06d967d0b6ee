//! The command line believes nobody.
