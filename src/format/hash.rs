//! The source hash: SHA-256 of a template's text, in lower-case hex.

use std::str::Utf8Error;

use sha2::{Digest, Sha256};

/// The hash that the engine computes for a template whose text is `source`: SHA-256 of its UTF-8
/// form, as 64 lower-case hex digits (kida's `hash_source`).
pub fn hash_source(source: &str) -> String {
    hex(&Sha256::digest(source.as_bytes()))
}

/// The hash that the engine computes for a template that is loaded from a file with `content`.
///
/// The engine's loader reads a file in text mode as UTF-8 (`Path.read_text`), so it never sees the
/// file's own line ends: `\r\n` and a lone `\r` both arrive as `\n`. They are translated here too,
/// without which a template saved with Windows line ends would never match its entry. A byte order
/// mark is kept, because Python's `utf-8` keeps it. A text that did not come from a file (a
/// dictionary loader, `from_string`) is hashed as it is: use [`hash_source`].
///
/// # Errors
/// `content` is not UTF-8; the engine could not have loaded it.
pub fn hash_file(content: &[u8]) -> Result<String, Utf8Error> {
    std::str::from_utf8(content)?;
    let mut hasher = Sha256::new();
    let mut rest = content;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\r') {
        hasher.update(&rest[..at]);
        hasher.update(b"\n");
        rest = &rest[at + 1..];
        rest = rest.strip_prefix(b"\n").unwrap_or(rest);
    }
    hasher.update(rest);
    Ok(hex(&hasher.finalize()))
}

/// Bytes as lower-case hex digits.
pub(super) fn hex(digest: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * digest.len());
    for byte in digest {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_sha256_in_lower_case_hex() {
        assert_eq!(
            hash_source("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_file_is_hashed_with_the_line_ends_that_the_loader_sees() {
        let unix = hash_source("a\nb\n\nc\n");
        for file in [
            "a\nb\n\nc\n",
            "a\r\nb\r\n\r\nc\r\n",
            "a\rb\r\rc\r",
            "a\rb\n\r\nc\n",
        ] {
            assert_eq!(hash_file(file.as_bytes()).unwrap(), unix, "{file:?}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_part_of_the_text() {
        assert_eq!(
            hash_file(b"\xef\xbb\xbfa").unwrap(),
            hash_source("\u{feff}a")
        );
    }

    #[test]
    fn a_file_that_is_not_utf8_is_refused() {
        assert_eq!(hash_file(b"ab\xff").unwrap_err().valid_up_to(), 2);
    }
}
