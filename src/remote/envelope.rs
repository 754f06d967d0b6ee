//! What lies around a signed text: four lines in minisign's format, then the text.
//!
//! ```text
//! untrusted comment: kidafs
//! <base64: "ED", key number, signature of BLAKE2b-512 of the text>
//! trusted comment: kidafs <kind> <SHA-256 of the text>
//! <base64: signature of the signature and the trusted comment>
//! <the text>
//! ```
//!
//! An unsigned one begins with the line `unsigned` instead. There is exactly one way to write each signature, and
//! every other is refused, so that no byte of an object can be changed without its being noticed.

use std::io::Cursor;

use minisign::SignatureBox;
use sha2::{Digest, Sha256};

use super::keys::{SigningKey, Trust, key_number};
use super::reject::{Reason, Reject};

/// More than any signature takes, in bytes.
const MOST_SIGNATURE: usize = 1024;

const UNTRUSTED: &str = "kidafs";
const UNSIGNED: &[u8] = b"unsigned\n";

/// What a signed text is about: a part of what is signed, so that one cannot be passed off as the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A pack's manifest.
    Pack,
    /// A namespace's epoch.
    Epoch,
}

impl Subject {
    fn word(self) -> &'static str {
        match self {
            Self::Pack => "pack",
            Self::Epoch => "epoch",
        }
    }
}

/// Who signed a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// Nobody.
    Nobody,
    /// A key that is trusted here, by the name it has here.
    Trusted(String),
    /// A key of this number, which nobody has looked at.
    Stranger(String),
}

/// The SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Bytes as lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn trusted_comment(subject: Subject, text: &[u8]) -> String {
    format!("kidafs {} {}", subject.word(), hex(&sha256(text)))
}

/// Puts a text into its envelope; without a key it is unsigned.
///
/// # Errors
/// When the system has no random numbers for the signature.
pub fn seal(
    subject: Subject,
    text: &[u8],
    key: Option<&SigningKey>,
) -> Result<Vec<u8>, minisign::PError> {
    let Some(key) = key else {
        return Ok([UNSIGNED, text].concat());
    };
    let comment = trusted_comment(subject, text);
    let signature = minisign::sign(
        None,
        key.secret(),
        Cursor::new(text),
        Some(&comment),
        Some(UNTRUSTED),
    )?;
    Ok([signature.to_string().as_bytes(), text].concat())
}

/// Takes an envelope apart, without a judgement on its signature: the signature, if there is one, and the text.
///
/// # Errors
/// [`Reason::Malformed`].
pub fn split(object: &[u8]) -> Result<(Option<SignatureBox>, &[u8]), Reject> {
    if let Some(text) = object.strip_prefix(UNSIGNED) {
        return Ok((None, text));
    }
    let malformed = |what: &str| Reject::new(Reason::Malformed, what);
    let head = &object[..object.len().min(MOST_SIGNATURE)];
    let mut ends = head.iter().enumerate().filter(|(_, b)| **b == b'\n');
    let end = ends
        .nth(3)
        .map(|(at, _)| at + 1)
        .ok_or_else(|| malformed("it begins with no signature"))?;
    let (lines, text) = object.split_at(end);
    let lines = std::str::from_utf8(lines).map_err(|_| malformed("its signature is no text"))?;
    let signature = SignatureBox::from_string(lines)
        .map_err(|error| malformed(&format!("its signature cannot be read: {error}")))?;
    Ok((Some(signature), text))
}

/// Takes the text out of an envelope and says who signed it.
///
/// # Errors
/// When it is malformed, unsigned though it must not be, signed by somebody else, or changed since.
pub fn open<'a>(
    subject: Subject,
    object: &'a [u8],
    trust: &Trust,
) -> Result<(Signer, &'a [u8]), Reject> {
    let (signature, text) = split(object)?;
    let Some(signature) = signature else {
        return if trust.unsigned || trust.anybody {
            Ok((Signer::Nobody, text))
        } else {
            Err(Reject::new(Reason::Unsigned, "it is not signed"))
        };
    };
    let number = signature.keynum();
    let mut keys = trust.keys.iter().filter(|key| key.number() == number);
    let Some(first) = keys.next() else {
        let number = key_number(number);
        if trust.anybody {
            return Ok((Signer::Stranger(number), text));
        }
        return Err(Reject::new(
            Reason::UntrustedKey,
            format!("it is signed by the key {number}, which is not trusted here"),
        ));
    };
    let bad = |what: String| Reject::new(Reason::BadSignature, what);
    // A key's number is 8 bytes that its maker chose: two keys can share one.
    let fits = |key: &&super::keys::TrustedKey| {
        minisign::verify(
            key.public(),
            &signature,
            Cursor::new(text),
            true,
            false,
            false,
        )
        .is_ok()
    };
    let key = std::iter::once(first)
        .chain(keys)
        .find(fits)
        .ok_or_else(|| bad(format!("it does not fit the key {}", first.name())))?;
    let comment = signature
        .trusted_comment()
        .map_err(|error| bad(error.to_string()))?;
    if comment != trusted_comment(subject, text) {
        return Err(bad("it was signed as something else".to_owned()));
    }
    // The only form there is: nothing that is not signed can carry a change.
    let written = signature.to_string();
    let untrusted = signature.untrusted_comment().unwrap_or_default();
    if untrusted != UNTRUSTED || object[..object.len() - text.len()] != *written.as_bytes() {
        return Err(Reject::new(
            Reason::Malformed,
            "its signature is written in another way than kidafs does",
        ));
    }
    Ok((Signer::Trusted(key.name().to_owned()), text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::keys::tests::pair;

    #[test]
    fn no_byte_of_a_signed_object_can_be_changed() {
        let (secret, public) = pair();
        let trust = Trust {
            keys: vec![public],
            ..Trust::default()
        };
        let object = seal(Subject::Pack, b"a text", Some(&secret)).unwrap();
        let (signer, text) = open(Subject::Pack, &object, &trust).unwrap();
        assert_eq!(
            (signer, text),
            (Signer::Trusted("test".into()), &b"a text"[..])
        );
        for at in 0..object.len() {
            for bit in 0..8 {
                let mut changed = object.clone();
                changed[at] ^= 1 << bit;
                assert!(
                    open(Subject::Pack, &changed, &trust).is_err(),
                    "bit {bit} of byte {at}: {}",
                    String::from_utf8_lossy(&changed)
                );
            }
        }
        for end in 0..object.len() {
            assert!(open(Subject::Pack, &object[..end], &trust).is_err());
        }
    }

    #[test]
    fn one_kind_of_text_cannot_be_passed_off_as_another() {
        let (secret, public) = pair();
        let trust = Trust {
            keys: vec![public],
            ..Trust::default()
        };
        let object = seal(Subject::Epoch, b"{}", Some(&secret)).unwrap();
        let reject = open(Subject::Pack, &object, &trust).unwrap_err();
        assert_eq!(reject.reason, Reason::BadSignature);
    }

    #[test]
    fn what_is_unsigned_or_of_a_stranger_is_refused_unless_that_is_asked_for() {
        let (stranger, _) = pair();
        let (_, public) = pair();
        let mut trust = Trust {
            keys: vec![public],
            ..Trust::default()
        };
        fn reason<'a>(object: &'a [u8], trust: &Trust) -> Result<(Signer, &'a [u8]), Reason> {
            open(Subject::Pack, object, trust).map_err(|reject| reject.reason)
        }
        let object = seal(Subject::Pack, b"{}", Some(&stranger)).unwrap();
        assert_eq!(reason(&object, &trust), Err(Reason::UntrustedKey));
        let object = seal(Subject::Pack, b"{}", None).unwrap();
        assert_eq!(reason(&object, &trust), Err(Reason::Unsigned));
        trust.unsigned = true;
        assert_eq!(reason(&object, &trust), Ok((Signer::Nobody, &b"{}"[..])));
    }
}
