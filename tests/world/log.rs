//! It can be asked what happened.
