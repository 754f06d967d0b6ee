//! No user takes more than a share.
