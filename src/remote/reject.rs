//! Why a pack or an entry is not taken. Each is counted under its reason.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a pack, or one entry of it, is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It carries no signature, and unsigned ones were not asked for.
    Unsigned,
    /// It is signed, by a key that is not trusted here.
    UntrustedKey,
    /// The signature is of a trusted key's number and does not fit.
    BadSignature,
    /// It is not built as docs/FORMAT.md says.
    Malformed,
    /// It lies under another name than its hash.
    WrongName,
    /// It was made for another namespace.
    WrongNamespace,
    /// The namespace was cleared since it was made.
    Cleared,
    /// It is of a format that this release does not know.
    UnknownFormat,
    /// It is larger than a pack may be, or than it says.
    TooLarge,
    /// An entry's path leads elsewhere, or is no entry's name.
    BadPath,
    /// The manifest is there and its body is not.
    MissingBody,
    /// The body is not the one that the manifest names.
    BadBody,
    /// An entry is not the one that the manifest names, or not of its engine's form.
    BadEntry,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Unsigned,
        Self::UntrustedKey,
        Self::BadSignature,
        Self::Malformed,
        Self::WrongName,
        Self::WrongNamespace,
        Self::Cleared,
        Self::UnknownFormat,
        Self::TooLarge,
        Self::BadPath,
        Self::MissingBody,
        Self::BadBody,
        Self::BadEntry,
    ];

    /// Its name in JSON, metrics and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::UntrustedKey => "untrusted-key",
            Self::BadSignature => "bad-signature",
            Self::Malformed => "malformed",
            Self::WrongName => "wrong-name",
            Self::WrongNamespace => "wrong-namespace",
            Self::Cleared => "cleared",
            Self::UnknownFormat => "unknown-format",
            Self::TooLarge => "too-large",
            Self::BadPath => "bad-path",
            Self::MissingBody => "missing-body",
            Self::BadBody => "bad-body",
            Self::BadEntry => "bad-entry",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A rejection: its reason, and for people what exactly is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Reject {
    /// The reason it is counted under.
    pub reason: Reason,
    /// The rest of the sentence.
    pub detail: String,
}

impl Reject {
    /// A rejection for `reason`.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

/// How often each reason was met.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rejections(pub BTreeMap<Reason, u64>);

impl Rejections {
    /// Counts one.
    pub fn count(&mut self, reason: Reason) {
        *self.0.entry(reason).or_default() += 1;
    }

    /// Adds those of another count.
    pub fn add(&mut self, other: &Self) {
        for (reason, count) in &other.0 {
            *self.0.entry(*reason).or_default() += count;
        }
    }

    /// All of them together.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

impl fmt::Display for Rejections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (reason, count) in &self.0 {
            write!(f, "{separator}{count} {reason}")?;
            separator = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_called_the_same_in_json_and_in_tables() {
        for reason in Reason::ALL {
            let json = serde_json::to_value(reason).unwrap();
            assert_eq!(json, reason.as_str());
        }
    }
}
