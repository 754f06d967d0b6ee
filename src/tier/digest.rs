//! The SHA-256 that every committed entry carries.

use sha2::{Digest as _, Sha256};

/// The extended attribute that holds an entry's digest: 32 bytes, not text.
///
/// Raw, because ext4 keeps an attribute of this size inside the inode; the 64 characters of its
/// hexadecimal form would cost every entry a block of its own.
pub const DIGEST_XATTR: &str = "user.kidafs.sha256";

/// The SHA-256 of a file's content.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// The form stored in [`DIGEST_XATTR`].
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads the stored form; `None` if it is not 32 bytes long.
    pub fn from_stored(stored: &[u8]) -> Option<Self> {
        Some(Self(stored.try_into().ok()?))
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Computes a [`Digest`] while content arrives, so that a commit need not read it again.
#[derive(Debug, Clone, Default)]
pub struct Digester {
    hasher: Sha256,
    seen: u64,
}

impl Digester {
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.seen += bytes.len() as u64;
    }

    /// The number of bytes taken in.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        Digest(self.hasher.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_whole_agree() {
        let content: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let mut digester = Digester::default();
        content.chunks(777).for_each(|chunk| digester.update(chunk));
        assert_eq!(digester.seen(), 10_000);
        assert_eq!(digester.finish(), Digest::of(&content));
    }

    #[test]
    fn the_stored_form_is_the_value_that_sha256sum_prints() {
        let digest = Digest::of(b"abc");
        assert_eq!(
            digest.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(Digest::from_stored(digest.as_bytes()), Some(digest));
        assert_eq!(Digest::from_stored(b"short"), None);
    }
}
