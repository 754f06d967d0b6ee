//! Its judgement of time, use and space is sound.
