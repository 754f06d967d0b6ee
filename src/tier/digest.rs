//! The SHA-256 that every committed entry carries, with a note of which edition of the file it is of.

use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

/// The extended attribute that holds a file's digest.
///
/// | bytes | what |
/// |---|---|
/// | 0 to 31 | SHA-256 of the content |
/// | 32 to 39 | size in bytes, unsigned, little-endian |
/// | 40 to 47 | time of the last change, nanoseconds since 1970, signed, little-endian |
///
/// What version 0.1 wrote ends after 32 bytes. Any other length is damage. Not text, because ext4 keeps an
/// attribute of this size inside the inode (with inodes of 256 bytes, up to 52 bytes under this name).
pub const DIGEST_XATTR: &str = "user.kidafs.sha256";

/// Which state of a file a digest is of. A program that changes a file changes the time of its last change; a
/// medium that damages it does not. So the two can be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edition {
    size: u64,
    /// Nanoseconds since 1970.
    mtime: i64,
}

impl Edition {
    /// A file of `size` bytes, last changed at `mtime`. Times beyond 1677 and 2262 count as those years' last moment.
    pub fn new(size: u64, mtime: SystemTime) -> Self {
        let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        let mtime = match mtime.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => nanos(after),
            Err(before) => -nanos(before.duration()),
        };
        Self { size, mtime }
    }

    /// The same on a filesystem that keeps times in steps of `unit` nanoseconds.
    pub(super) fn in_steps_of(self, unit: i64) -> Self {
        let mtime = self.mtime - self.mtime.rem_euclid(unit.max(1));
        Self { mtime, ..self }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Time of the last change, in nanoseconds since 1970.
    pub fn mtime_nanos(&self) -> i64 {
        self.mtime
    }

    /// Whether a file that is `now` is a later edition than this one, and no damaged copy of it: its time is
    /// another, or it has grown. (What a power cut tears is shorter, or zeros, under the time that was set.)
    pub fn was_changed(&self, now: &Self) -> bool {
        self.mtime != now.mtime || now.size > self.size
    }
}

/// What a file carries in [`DIGEST_XATTR`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// Nothing.
    None,
    /// Something that kidafs does not write: damage.
    Malformed,
    /// A digest, and of which edition it is (version 0.1 did not say).
    Of(Digest, Option<Edition>),
}

impl Signature {
    /// Reads the stored form.
    pub fn from_stored(stored: &[u8]) -> Self {
        let Some((digest, rest)) = stored.split_first_chunk::<32>() else {
            return Self::Malformed;
        };
        let digest = Digest(*digest);
        if rest.is_empty() {
            return Self::Of(digest, None);
        }
        match (rest.first_chunk(), rest.last_chunk(), rest.len()) {
            (Some(size), Some(mtime), 16) => Self::Of(
                digest,
                Some(Edition {
                    size: u64::from_le_bytes(*size),
                    mtime: i64::from_le_bytes(*mtime),
                }),
            ),
            _ => Self::Malformed,
        }
    }

    /// The stored form of a digest with its edition.
    pub fn stored(digest: &Digest, edition: &Edition) -> [u8; 48] {
        let mut stored = [0; 48];
        stored[..32].copy_from_slice(&digest.0);
        stored[32..40].copy_from_slice(&edition.size.to_le_bytes());
        stored[40..].copy_from_slice(&edition.mtime.to_le_bytes());
        stored
    }
}

/// The SHA-256 of a file's content.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest in a stored form; `None` if that is malformed.
    pub fn from_stored(stored: &[u8]) -> Option<Self> {
        match Signature::from_stored(stored) {
            Signature::Of(digest, _) => Some(digest),
            Signature::None | Signature::Malformed => None,
        }
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

    #[test]
    fn only_the_two_lengths_that_were_ever_written_are_read() {
        let digest = Digest::of(b"abc");
        let edition = Edition::new(3, SystemTime::UNIX_EPOCH + Duration::new(5, 7));
        let stored = Signature::stored(&digest, &edition);
        assert_eq!(
            Signature::from_stored(&stored),
            Signature::Of(digest, Some(edition))
        );
        for length in (0..=64).filter(|length| ![32, 48].contains(length)) {
            let bytes = [&stored[..], &[0; 16]].concat();
            assert_eq!(
                Signature::from_stored(&bytes[..length]),
                Signature::Malformed
            );
        }
    }

    #[test]
    fn a_changed_file_is_told_from_a_torn_one() {
        let at = |size, secs, nanos| {
            Edition::new(size, SystemTime::UNIX_EPOCH + Duration::new(secs, nanos))
        };
        let signed = at(100, 5, 7);
        assert!(!signed.was_changed(&at(100, 5, 7)), "damaged in place");
        assert!(!signed.was_changed(&at(0, 5, 7)), "torn");
        assert!(signed.was_changed(&at(100, 5, 8)));
        assert!(signed.was_changed(&at(10, 4, 7)));
        assert!(signed.was_changed(&at(101, 5, 7)), "appended to at once");
        assert_eq!(
            at(1, 5, 123_456_789).in_steps_of(1_000_000_000),
            at(1, 5, 0)
        );
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 50);
        assert!(!Edition::new(1, far).was_changed(&Edition::new(1, far)));
    }
}
