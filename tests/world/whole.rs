//! What is committed is whole, and what was acknowledged is there.
