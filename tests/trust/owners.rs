//! Whose files are served to whom.
