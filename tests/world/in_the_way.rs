//! It is never in the application's way.
