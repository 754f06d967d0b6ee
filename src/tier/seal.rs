//! Seals: whoever lacks the key can neither make an entry nor move, copy or bring back one.
//!
//! docs/FORMAT.md has the forms of the attribute and of the key file.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::digest::{Digest, Edition};

/// The extended attribute that holds a file's seal.
pub const SEAL_XATTR: &str = "user.kidafs.seal";

/// What every seal is made over first, so that no other use of a key can be taken for one.
const CONTEXT: &[u8] = b"kidafs-seal-1\0";

/// The version of the stored form.
const VERSION: u8 = 1;

/// Length of a key's name.
const KEY_ID: usize = 8;

/// Length of the stored form: version, key id, code.
pub const SEAL_LEN: usize = 1 + KEY_ID + 32;

/// A longer key file is not read.
pub const KEY_FILE_MAX: u64 = 64 * 1024;

/// What a seal is made over beside the key file's own facts.
#[derive(Debug, Clone, Copy)]
pub struct Sealed<'a> {
    /// From the root, without a leading slash.
    pub path: &'a [u8],
    /// Size and time of last change.
    pub edition: Edition,
    /// Of the content.
    pub digest: &'a Digest,
}

#[derive(Clone)]
struct Key {
    id: [u8; KEY_ID],
    mac: Hmac<Sha256>,
}

/// The keys of a key file: the first one seals, each of them verifies.
#[derive(Clone)]
pub struct Keyring {
    keys: Vec<Key>,
    volume: [u8; 16],
    epoch: u64,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Nothing of a key.
        f.debug_struct("Keyring")
            .field("keys", &self.keys.len())
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// Why a key file says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A line that is none of the three kinds.
    #[error(
        "line {0} is none of 'volume HEX', 'epoch N' and 'key HEX', or its value has another length"
    )]
    Line(usize),
    /// No key.
    #[error("it has no key")]
    NoKey,
    /// No volume.
    #[error("it has no line 'volume HEX'")]
    NoVolume,
    /// A line given twice.
    #[error("line {0} says a second time what may be said once")]
    Twice(usize),
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text of a new key file, from 48 random bytes.
pub fn new_key_file(random: &[u8; 48]) -> Zeroizing<String> {
    Zeroizing::new(format!(
        "# Seal keys of a kidafs cache. The first key seals, each of them verifies; raise the epoch to void\n\
         # what was sealed before.\nvolume {}\nepoch 1\nkey {}\n",
        hex(&random[..16]),
        hex(&random[16..])
    ))
}

impl Keyring {
    /// Reads a key file: exactly 32 bytes, or lines of text.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(file: &[u8]) -> Result<Self, KeyError> {
        if let Ok(key) = <[u8; 32]>::try_from(file) {
            let mut volume = [0; 16];
            let derived = Sha256::new()
                .chain_update(b"kidafs-volume\0")
                .chain_update(key);
            volume.copy_from_slice(&derived.finalize()[..16]);
            return Ok(Self {
                keys: vec![Key::new(&key)],
                volume,
                epoch: 0,
            });
        }
        let text = std::str::from_utf8(file).map_err(|_| KeyError::Line(1))?;
        let (mut keys, mut volume, mut epoch) = (Vec::new(), None, None);
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let malformed = KeyError::Line(number);
            let (word, value) = line.split_once(char::is_whitespace).ok_or(malformed)?;
            let value = value.trim();
            let again = match word {
                "volume" => volume
                    .replace(unhex::<16>(value).ok_or(malformed)?)
                    .is_some(),
                "epoch" => epoch
                    .replace(value.parse::<u64>().map_err(|_| malformed)?)
                    .is_some(),
                "key" => {
                    let key = Zeroizing::new(unhex::<32>(value).ok_or(malformed)?);
                    keys.push(Key::new(&key));
                    false
                }
                _ => return Err(malformed),
            };
            if again {
                return Err(KeyError::Twice(number));
            }
        }
        if keys.is_empty() {
            return Err(KeyError::NoKey);
        }
        Ok(Self {
            keys,
            volume: volume.ok_or(KeyError::NoVolume)?,
            epoch: epoch.unwrap_or(0),
        })
    }

    fn code(&self, key: &Key, sealed: &Sealed<'_>) -> Hmac<Sha256> {
        let mut mac = key.mac.clone();
        mac.update(CONTEXT);
        mac.update(&self.volume);
        // A path is shorter than 4 GiB on every system.
        mac.update(&(sealed.path.len() as u32).to_le_bytes());
        mac.update(sealed.path);
        mac.update(&sealed.edition.size().to_le_bytes());
        mac.update(&sealed.edition.mtime_nanos().to_le_bytes());
        mac.update(&self.epoch.to_le_bytes());
        mac.update(sealed.digest.as_bytes());
        mac
    }

    /// The stored form of a seal by the first key.
    pub fn seal(&self, sealed: &Sealed<'_>) -> [u8; SEAL_LEN] {
        let mut stored = [0; SEAL_LEN];
        // There is one: see `parse`.
        if let Some(key) = self.keys.first() {
            stored[0] = VERSION;
            stored[1..=KEY_ID].copy_from_slice(&key.id);
            let code = self.code(key, sealed).finalize().into_bytes();
            stored[1 + KEY_ID..].copy_from_slice(&code);
        }
        stored
    }

    fn key_of(&self, stored: &[u8]) -> Option<&Key> {
        let is_whole = stored.len() == SEAL_LEN && stored[0] == VERSION;
        is_whole
            .then(|| self.keys.iter().find(|key| key.id == stored[1..=KEY_ID]))
            .flatten()
    }

    /// Whether a stored seal is right, by any of the keys. Compared in constant time.
    pub fn verify(&self, stored: &[u8], sealed: &Sealed<'_>) -> bool {
        self.key_of(stored).is_some_and(|key| {
            let code = self.code(key, sealed);
            code.verify_slice(&stored[1 + KEY_ID..]).is_ok()
        })
    }

    /// Whether a stored seal names the first key.
    pub fn is_first(&self, stored: &[u8]) -> bool {
        let named = self.key_of(stored).map(|key| key.id);
        named.is_some() && named == self.keys.first().map(|key| key.id)
    }
}

impl Key {
    fn new(key: &[u8; 32]) -> Self {
        let mut id = [0; KEY_ID];
        let derived = Sha256::new()
            .chain_update(b"kidafs-key-id\0")
            .chain_update(key);
        id.copy_from_slice(&derived.finalize()[..KEY_ID]);
        // A key shorter than the hash's block is filled up with zeros (RFC 2104).
        let mut block = Zeroizing::new([0; 64]);
        block[..32].copy_from_slice(key);
        Self {
            id,
            mac: Hmac::new((&*block).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    fn ring(seed: u8) -> Keyring {
        Keyring::parse(new_key_file(&[seed; 48]).as_bytes()).unwrap()
    }

    #[test]
    fn a_seal_is_of_one_key_volume_path_edition_epoch_and_content() {
        let ring = ring(1);
        let at = |nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
        let digest = Digest::of(b"content");
        let edition = Edition::new(7, at(5));
        let sealed = Sealed {
            path: b"a/b",
            edition,
            digest: &digest,
        };
        let stored = ring.seal(&sealed);
        assert!(ring.verify(&stored, &sealed));
        let other = Digest::of(b"Content");
        for wrong in [
            Sealed {
                path: b"a/c",
                ..sealed
            },
            Sealed {
                path: b"b",
                ..sealed
            },
            Sealed {
                path: b"a/b\0",
                ..sealed
            },
            Sealed {
                edition: Edition::new(8, at(5)),
                ..sealed
            },
            Sealed {
                edition: Edition::new(7, at(6)),
                ..sealed
            },
            Sealed {
                digest: &other,
                ..sealed
            },
        ] {
            assert!(!ring.verify(&stored, &wrong), "{wrong:?}");
        }
        for byte in 0..SEAL_LEN {
            let mut wrong = stored;
            wrong[byte] ^= 1;
            assert!(!ring.verify(&wrong, &sealed), "{byte}");
        }
        for len in 0..SEAL_LEN {
            assert!(!ring.verify(&stored[..len], &sealed));
        }
        assert!(!super::tests::ring(2).verify(&stored, &sealed));
        for change in [
            |ring: &mut Keyring| ring.epoch += 1,
            |ring: &mut Keyring| ring.volume[0] ^= 1,
        ] {
            let mut changed = ring.clone();
            change(&mut changed);
            assert!(!changed.verify(&stored, &sealed));
        }
    }

    #[test]
    fn the_first_key_seals_and_each_verifies() {
        let line = |seed: u8| format!("key {}\n", hex(&[seed; 32]));
        let volume = format!("volume {}\n", hex(&[9; 16]));
        let parse = |text: String| Keyring::parse(text.as_bytes()).unwrap();
        let old = parse(format!("{volume}{}", line(1)));
        let both = parse(format!("# new first\n{volume}\n{}{}", line(2), line(1)));
        let new = parse(format!("{}{volume}", line(2)));
        let digest = Digest::of(b"");
        let sealed = Sealed {
            path: b"x",
            edition: Edition::new(0, SystemTime::UNIX_EPOCH),
            digest: &digest,
        };
        let stored = old.seal(&sealed);
        assert!(both.verify(&stored, &sealed) && !both.is_first(&stored));
        assert!(!new.verify(&stored, &sealed));
        let stored = both.seal(&sealed);
        assert!(new.verify(&stored, &sealed) && both.is_first(&stored));
        assert!(!old.verify(&stored, &sealed));
    }

    #[test]
    fn what_is_no_key_file_is_refused() {
        let good = new_key_file(&[3; 48]).to_string();
        Keyring::parse(good.as_bytes()).unwrap();
        Keyring::parse(&[7; 32]).unwrap();
        let bad = [
            String::new(),
            "key 00\n".to_owned(),
            good.replace("volume", "Volume"),
            good.replace("epoch 1", "epoch -1"),
            good.replace("epoch 1", "epoch"),
            good.replace("epoch 1", "epoch 1\nepoch 2"),
            good.lines()
                .filter(|line| !line.starts_with("key"))
                .collect::<Vec<_>>()
                .join("\n"),
            good.lines()
                .filter(|line| !line.starts_with("volume"))
                .collect::<Vec<_>>()
                .join("\n"),
            good.trim_end().to_owned() + "0",
            "x".repeat(31),
            "x".repeat(33),
        ];
        for text in bad {
            assert!(Keyring::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(!format!("{:?}", ring(5)).contains("05"));
    }
}
