//! Which entries leave and why.
//!
//! [`plan`](plan()) is the policy: a pure function of what is there, the time and the limits, so
//! that a plan can be shown before it is carried out and tested without a filesystem.

mod plan;
mod sources;
mod space;
mod trigger;

pub use plan::{BY_NAME, EntryInfo, Free, Kind, Limits, Plan, Reason, Verdict, Victim, plan};
pub use sources::{LARGEST, Looker, Question, Seen};
pub use trigger::Trigger;
