//! Entry file names, both ways.

/// A file name pattern with the placeholders `{version}`, `{name}` and `{hash}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Default for Pattern {
    fn default() -> Self {
        Self("__kida_{version}_{name}_{hash}.pyc".to_owned())
    }
}
