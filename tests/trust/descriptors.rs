//! Nothing is looked at under a name and then acted on under the name again.
