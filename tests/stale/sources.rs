//! Sources are looked at, and hostile ones cost nothing.
