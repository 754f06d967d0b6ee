//! Without a right seal nothing is served.
