//! Which entries leave and why.
//!
//! [`plan`](plan()) is the policy: a pure function of what is there, the time and the limits, so
//! that a plan can be shown before it is carried out and tested without a filesystem.

mod plan;
mod trigger;

pub use plan::{EntryInfo, Free, Kind, Limits, Reason, Victim, plan};
pub use trigger::Trigger;
