//! Keys in minisign's format: who may sign, and whose signatures are believed here.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ct_codecs::{Base64, Decoder};
use minisign::{KeyPair, PublicKey, PublicKeyBox, SecretKey, SecretKeyBox};

/// More than any key file holds, in bytes.
const MOST: u64 = 16 << 10;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the key {path}: {error}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file can be read by others.
    #[error(
        "the secret key {path} can be read by other users: run `chmod 600 {path}`, and make a new key if it lay open",
        path = path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// It is not a public key.
    #[error(
        "{text} is no public key: name a file that `kidafs key generate` or `minisign -G` made, or give the key's second line"
    )]
    NotPublic {
        /// What was given.
        text: String,
    },
    /// It is not a secret key.
    #[error("{path} is no secret key: name the file that `kidafs key generate` made", path = path.display())]
    NotSecret {
        /// The file.
        path: PathBuf,
    },
    /// It has a password, and none or a wrong one was given.
    #[error(
        "the secret key {path} is protected by a password: put the right one into KIDAFS_KEY_PASSWORD",
        path = path.display()
    )]
    Password {
        /// The file.
        path: PathBuf,
    },
    /// It could not be made.
    #[error("cannot make a key: {0}")]
    Make(String),
}

/// A key's number as minisign shows it: 16 hex digits.
pub fn key_number(number: &[u8]) -> String {
    number
        .iter()
        .rev()
        .map(|byte| format!("{byte:02X}"))
        .collect()
}

/// A key whose signatures are believed here, by a name that people know it by.
#[derive(Clone)]
pub struct TrustedKey {
    name: String,
    key: PublicKey,
}

impl fmt::Debug for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, key_number(self.number()))
    }
}

impl TrustedKey {
    /// Reads a key: `[NAME=]FILE`, or `[NAME=]` and the base64 line of a key file. Without a name, a file's name
    /// without its ending is it, or else the key's number.
    ///
    /// # Errors
    /// When it is no key.
    pub fn read(text: &str) -> Result<Self, KeyError> {
        // Base64 ends with at most two `=`; a key's, which is 42 bytes long, with none.
        let (name, value) = match text.split_once('=') {
            Some((name, value)) if !name.contains('/') => (Some(name), value),
            _ => (None, text),
        };
        if let Ok(key) = PublicKey::from_base64(value) {
            let name = name.map_or_else(|| key_number(key.keynum()), str::to_owned);
            return Ok(Self { name, key });
        }
        let path = Path::new(value);
        let content = read(path)?;
        let key = PublicKeyBox::from_string(&content)
            .and_then(PublicKeyBox::into_public_key)
            .map_err(|_| KeyError::NotPublic {
                text: path.display().to_string(),
            })?;
        let stem = || path.file_stem().map(|stem| stem.to_string_lossy());
        let name = name.map(str::to_owned).or_else(|| Some(stem()?.into()));
        let name = name.unwrap_or_else(|| key_number(key.keynum()));
        Ok(Self { name, key })
    }

    /// The name it has here.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's number.
    pub fn number(&self) -> &[u8] {
        self.key.keynum()
    }

    /// The key.
    pub fn public(&self) -> &PublicKey {
        &self.key
    }
}

/// Whose packs are taken.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// These keys', each of them.
    pub keys: Vec<TrustedKey>,
    /// Unsigned ones as well.
    pub unsigned: bool,
    /// Anybody's, to be looked at and not to be used.
    pub anybody: bool,
}

/// A key to sign with.
pub struct SigningKey(SecretKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the secret key {}", key_number(self.0.keynum()))
    }
}

/// What a key file holds.
#[derive(Debug)]
pub enum KeyFile {
    /// A public key.
    Public(TrustedKey),
    /// A secret key without a password.
    Secret(SigningKey),
    /// A secret key with a password.
    Protected,
}

impl KeyFile {
    /// Reads a key file of whatever kind, or a public key's line.
    ///
    /// # Errors
    /// When it is no key.
    pub fn read(text: &str) -> Result<Self, KeyError> {
        let public = TrustedKey::read(text);
        match public {
            Ok(key) => Ok(Self::Public(key)),
            Err(error @ KeyError::Read { .. }) => Err(error),
            Err(error) => match SigningKey::read(Path::new(text), || None) {
                Ok(key) => Ok(Self::Secret(key)),
                Err(KeyError::Password { .. }) => Ok(Self::Protected),
                Err(open @ KeyError::Open { .. }) => Err(open),
                Err(_) => Err(error),
            },
        }
    }
}

impl SigningKey {
    /// Reads a secret key's file. A password is asked of `password`, once, and only if the key has one.
    ///
    /// # Errors
    /// When it is no key, lies open to others, or the password is wrong.
    pub fn read(path: &Path, password: impl FnOnce() -> Option<String>) -> Result<Self, KeyError> {
        use std::os::unix::fs::MetadataExt;
        let content = read(path)?;
        // What cannot be looked at could not be read either.
        if fs::metadata(path).is_ok_and(|status| status.mode() & 0o077 != 0) {
            return Err(KeyError::Open { path: path.into() });
        }
        let not_secret = || KeyError::NotSecret { path: path.into() };
        let of = |text: &str| SecretKeyBox::from_string(text).map_err(|_| not_secret());
        if let Ok(key) = of(&content)?.into_unencrypted_secret_key() {
            return Ok(Self(key));
        }
        if let Some(key) = without_checksum(&content) {
            return Ok(Self(key));
        }
        // A file that is no key at all must not have its user look for a password.
        let line = content.lines().nth(1).unwrap_or_default().trim();
        if line.len() < 200 || !content.starts_with("untrusted comment:") {
            return Err(not_secret());
        }
        let wrong = || KeyError::Password { path: path.into() };
        let password = password().ok_or_else(wrong)?;
        let key = of(&content)?.into_secret_key(Some(password));
        key.map(Self).map_err(|_| wrong())
    }

    /// The key itself.
    pub fn secret(&self) -> &SecretKey {
        &self.0
    }

    /// The public key that belongs to it, by the name `name`.
    ///
    /// # Errors
    /// When the secret key's file lacks it.
    pub fn public(&self, name: &str) -> Result<TrustedKey, KeyError> {
        let key = PublicKey::from_secret_key(&self.0).map_err(|e| KeyError::Make(e.to_string()))?;
        Ok(TrustedKey {
            name: name.to_owned(),
            key,
        })
    }
}

/// A new pair, as the texts of its two files.
#[derive(Debug)]
pub struct Pair {
    /// The secret key's file.
    pub secret: String,
    /// The public key's file.
    pub public: String,
    /// The key's number.
    pub number: String,
    /// The public key's second line, which can stand in for its file.
    pub base64: String,
}

/// Makes a key pair; with a password the secret key is encrypted with it, as minisign does it.
///
/// # Errors
/// When the system has no random numbers, or not the memory that the encryption takes (1 GiB).
pub fn generate(password: Option<String>) -> Result<Pair, KeyError> {
    let make = |error: minisign::PError| KeyError::Make(error.to_string());
    let pair = match password {
        None => KeyPair::generate_unencrypted_keypair(),
        password => KeyPair::generate_encrypted_keypair(password),
    }
    .map_err(make)?;
    let number = key_number(pair.pk.keynum());
    let comment = format!("kidafs secret key {number}");
    let secret = pair.sk.to_box(Some(&comment)).map_err(make)?;
    let comment = format!("kidafs public key {number}");
    let base64 = pair.pk.to_base64();
    Ok(Pair {
        secret: secret.into_string(),
        public: format!("untrusted comment: {comment}\n{base64}\n"),
        number,
        base64,
    })
}

/// A secret key without a password as minisign up to 0.11 writes it (`-W`): its checksum is left zero.
fn without_checksum(content: &str) -> Option<SecretKey> {
    const LEN: usize = 158;
    const CHECKSUM: usize = 32;
    let line = content.lines().nth(1)?.trim();
    let bytes = Base64::decode_to_vec(line, None).ok()?;
    let is_plain = bytes.len() == LEN
        && bytes[..4] == *b"Ed\0\0"
        && bytes[LEN - CHECKSUM..].iter().all(|byte| *byte == 0);
    SecretKey::from_bytes(&bytes).ok().filter(|_| is_plain)
}

fn read(path: &Path) -> Result<String, KeyError> {
    let fail = |error| KeyError::Read {
        path: path.to_owned(),
        error,
    };
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MOST).read_to_string(&mut text))
        .map_err(fail)?;
    Ok(text)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A pair of keys; the public one's name is `test`.
    pub(crate) fn pair() -> (SigningKey, TrustedKey) {
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        let secret = SigningKey(pair.sk);
        let public = secret.public("test").unwrap();
        (secret, public)
    }

    #[test]
    fn a_public_key_is_a_file_or_a_line_and_has_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let pair = generate(None).unwrap();
        let file = folder.path().join("ci-2026.pub");
        fs::write(&file, &pair.public).unwrap();
        let file = file.to_str().unwrap();
        for (text, name) in [
            (file.to_owned(), "ci-2026"),
            (format!("old={file}"), "old"),
            (pair.base64.clone(), pair.number.as_str()),
            (format!("ci={}", pair.base64), "ci"),
        ] {
            let key = TrustedKey::read(&text).unwrap();
            assert_eq!(key.name(), name);
            assert_eq!(key_number(key.number()), pair.number);
        }
        assert!(TrustedKey::read("/dev/null").is_err());
    }

    #[test]
    fn a_secret_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, generate(None).unwrap().secret).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            SigningKey::read(&path, || None),
            Err(KeyError::Open { .. })
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        SigningKey::read(&path, || None).unwrap();
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(
            SigningKey::read(&path, || None),
            Err(KeyError::NotSecret { .. })
        ));
    }
}
