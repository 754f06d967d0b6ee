//! It removes only what it knows to be a cache entry.
