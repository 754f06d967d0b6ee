//! Entry framing, file names and marshal streams. Nothing here does I/O or executes anything.

mod name;
pub use name::Pattern;
