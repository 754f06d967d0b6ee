//! Hashes of a source's content, in each way in which an engine may have read it.

use std::borrow::Cow;
use std::hash::Hasher;

use encoding_rs::Encoding;
use sha1::{Digest, Sha1};
use sha2::Sha256;
use siphasher::sip::{SipHasher13, SipHasher24};

use super::Fingerprint;
use crate::format::{hash::hex, importlib::python_of};

/// What the fingerprints of a file's entries are compared with. Worth keeping while the file does not
/// change: it is a few hundred bytes, whatever the file's size.
///
/// A template's hash is that of its *text*, and how a loader makes a text of the file is not in the entry.
/// So the hash of each reading that a loader of the engines could have made is here:
///
/// - line ends as they are (Jinja2's `PackageLoader`), and each made `\n` (Python's text mode);
/// - UTF-8, with and without its byte order mark; a file that is not UTF-8: in each of the encodings
///   of [`ENCODINGS`], and in Latin-1.
///
/// A template in another encoding matches nothing, and its entries are of unknown state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Digests {
    sha256: Vec<[u8; 32]>,
    sha1: Vec<[u8; 20]>,
    keyed: Vec<(u16, [u8; 8])>,
}

/// The encodings, beside UTF-8 and Latin-1, that templates are written in often enough.
static ENCODINGS: [&Encoding; 15] = [
    encoding_rs::WINDOWS_1252,
    encoding_rs::WINDOWS_1251,
    encoding_rs::WINDOWS_1250,
    encoding_rs::WINDOWS_1253,
    encoding_rs::WINDOWS_1254,
    encoding_rs::ISO_8859_2,
    encoding_rs::ISO_8859_15,
    encoding_rs::KOI8_R,
    encoding_rs::SHIFT_JIS,
    encoding_rs::EUC_JP,
    encoding_rs::GBK,
    encoding_rs::BIG5,
    encoding_rs::EUC_KR,
    encoding_rs::UTF_16LE,
    encoding_rs::UTF_16BE,
];

impl Digests {
    /// The digests of `content` that are needed to compare it with `wanted`.
    ///
    /// Takes time in proportion to the content, 18 times that at most (for a file that is not UTF-8),
    /// and at most four times its memory.
    pub fn of<'a>(content: &[u8], wanted: impl IntoIterator<Item = &'a Fingerprint>) -> Self {
        let mut digests = Self::default();
        let (mut sha256, mut sha1) = (false, false);
        for fingerprint in wanted {
            match fingerprint {
                Fingerprint::Sha256(_) => sha256 = true,
                Fingerprint::Sha1(_) => sha1 = true,
                Fingerprint::Keyed { magic, .. } if !digests.has_key(*magic) => {
                    digests.keyed.push((*magic, keyed(*magic, content)));
                }
                _ => {}
            }
        }
        if sha256 || sha1 {
            each_text(content, &mut |text| {
                if sha256 {
                    digests.sha256.push(Sha256::digest(text).into());
                }
                if sha1 {
                    digests.sha1.push(Sha1::digest(text).into());
                }
            });
        }
        digests
    }

    fn has_key(&self, wanted: u16) -> bool {
        self.keyed.iter().any(|(magic, _)| *magic == wanted)
    }

    pub(super) fn has_sha256(&self, prefix: &str) -> bool {
        self.sha256.iter().any(|sum| hex(sum).starts_with(prefix))
    }

    pub(super) fn has_sha1(&self, wanted: &str) -> bool {
        self.sha1.iter().any(|sum| hex(sum) == wanted)
    }

    pub(super) fn has_keyed(&self, magic: u16, hash: [u8; 8]) -> bool {
        self.keyed.contains(&(magic, hash))
    }
}

/// SHA-1 of a text, as 40 hex digits.
pub(in crate::format) fn sha1_hex(parts: &[&[u8]]) -> String {
    let mut hasher = Sha1::new();
    for part in parts {
        hasher.update(part);
    }
    hex(&hasher.finalize())
}

/// The interpreter's keyed hash of a source (`_imp.source_hash`): SipHash-1-3 since 3.11,
/// SipHash-2-4 before, with the magic number's four bytes as the key.
fn keyed(magic: u16, content: &[u8]) -> [u8; 8] {
    let key = u64::from(magic) | 0x0a0d_0000;
    let is_old = python_of(magic).is_some_and(|(_, minor)| minor < 11);
    let hash = if is_old {
        let mut hasher = SipHasher24::new_with_keys(key, 0);
        hasher.write(content);
        hasher.finish()
    } else {
        let mut hasher = SipHasher13::new_with_keys(key, 0);
        hasher.write(content);
        hasher.finish()
    };
    hash.to_le_bytes()
}

/// Hears each text, as UTF-8, that a loader could have made of a file.
fn each_text(content: &[u8], hear: &mut dyn FnMut(&[u8])) {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    if std::str::from_utf8(content).is_ok() {
        each_line_end(content, hear);
        if let Some(text) = content.strip_prefix(MARK) {
            each_line_end(text, hear);
        }
        return;
    }
    let latin1 = encoding_rs::mem::decode_latin1(content);
    each_line_end(latin1.as_bytes(), hear);
    drop(latin1);
    for encoding in ENCODINGS {
        // A byte order mark goes, as with Python's `utf-16`; where the encoding is not the file's there is none.
        if let Some(text) = decoded(encoding, content) {
            each_line_end(text.as_bytes(), hear);
        }
    }
}

/// A file's text in an encoding; `None` if it is not in it.
fn decoded<'a>(encoding: &'static Encoding, content: &'a [u8]) -> Option<Cow<'a, str>> {
    let content = match (Encoding::for_bom(content), content) {
        (Some((marked, len)), content) if marked == encoding => &content[len..],
        (_, content) => content,
    };
    encoding.decode_without_bom_handling_and_without_replacement(content)
}

/// Hears a text as it is and, where that is another, with each line's end as `\n`.
fn each_line_end(text: &[u8], hear: &mut dyn FnMut(&[u8])) {
    hear(text);
    if !text.contains(&b'\r') {
        return;
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\r') {
        plain.extend_from_slice(&rest[..at]);
        plain.push(b'\n');
        rest = &rest[at + 1..];
        rest = rest.strip_prefix(b"\n").unwrap_or(rest);
    }
    plain.extend_from_slice(rest);
    hear(&plain);
}
