//! Entries of Jinja2's bytecode cache (`jinja2/bccache.py`).
//!
//! | bytes | what |
//! |---|---|
//! | `6a 32` | the letters `j2` |
//! | pickle of a number | `bc_version`: 5 in Jinja2 3, 2 to 4 before |
//! | pickle of a number | the interpreter, major version << 24 or minor version; not in entries before `bc_version` 3 |
//! | pickle of a text | SHA-1 of the template's text, 40 hex digits |
//! | marshal | the code object |
//!
//! The pickles are read as far as Jinja2 writes them: protocol 2, no more than one value.

use super::engine::Form;

/// What every entry begins with.
const MAGIC: &[u8] = b"j2";

/// The length of a SHA-1 in hex digits.
const SHA1_HEX: usize = 40;

/// What stands before an entry's code object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Jinja2's `bc_version`.
    pub bc_version: u32,
    /// The interpreter's major and minor version, if the entry says.
    pub python: Option<(u32, u32)>,
    /// SHA-1 of the template's text, as 40 lower-case hex digits.
    pub checksum: &'a str,
    /// Where the code object begins, in bytes from the entry's start.
    pub code_at: usize,
}

/// Reads an entry's header; `None` if it is not one, or one of a form that this release does not know.
pub fn header(content: &[u8]) -> Option<Header<'_>> {
    let (bc_version, rest) = number(content.strip_prefix(MAGIC)?)?;
    let (python, rest) = match number(rest) {
        Some((python, rest)) => (Some((python >> 24, python & 0xff_ffff)), rest),
        None => (None, rest),
    };
    let (checksum, rest) = text(rest)?;
    let checksum = std::str::from_utf8(checksum).ok()?;
    let is_sha1 = checksum.len() == SHA1_HEX && checksum.bytes().all(is_hex);
    is_sha1.then_some(Header {
        bc_version,
        python,
        checksum,
        code_at: content.len() - rest.len(),
    })
}

/// The cache key in a file's name: the first run of exactly 40 lower-case hex digits. It is SHA-1 of
/// the template's name, and of `|` and its file's if it has one; the rest of the name is the pattern's.
pub fn key_of(name: &[u8]) -> Option<&str> {
    let mut runs = name.split(|&byte| !is_hex(byte));
    let key = runs.find(|run| run.len() == SHA1_HEX)?;
    std::str::from_utf8(key).ok()
}

/// Whether the name is of the default pattern, `__jinja2_%s.cache`.
pub fn is_default_name(name: &[u8]) -> bool {
    let key = name
        .strip_prefix(b"__jinja2_")
        .and_then(|rest| rest.strip_suffix(b".cache"));
    key.is_some_and(|key| key_of(key).is_some_and(|hex| hex.len() == key.len()))
}

pub(super) fn form(head: &[u8]) -> Option<Form> {
    if header(head).is_some() {
        return Some(Form::Known);
    }
    // A later release may lay out differently what follows its number; a cut-off entry of a known
    // one is no entry.
    let (bc_version, _) = number(head.strip_prefix(MAGIC)?)?;
    (bc_version > 5).then_some(Form::Unknown)
}

/// The rest of a pickle after its protocol.
fn after_protocol(pickle: &[u8]) -> Option<&[u8]> {
    match pickle {
        [0x80, 0..=3, rest @ ..] => Some(rest),
        _ => None,
    }
}

/// A pickled number that is not negative, and what follows.
fn number(pickle: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = match after_protocol(pickle)? {
        [b'K', a, rest @ ..] => (u32::from(*a), rest),
        [b'M', a, b, rest @ ..] => (u32::from(u16::from_le_bytes([*a, *b])), rest),
        [b'J', a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]), rest),
        _ => return None,
    };
    let is_positive = i32::try_from(number).is_ok();
    is_positive.then_some((number, rest.strip_prefix(b".")?))
}

/// A pickled text, and what follows.
fn text(pickle: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = match after_protocol(pickle)? {
        [b'X', a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]), rest),
        // Python 2's str.
        [b'U', len, rest @ ..] => (u32::from(*len), rest),
        _ => return None,
    };
    let (text, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    let rest = match rest {
        // The pickler remembers it, for nothing.
        [b'q', _, rest @ ..] => rest,
        rest => rest,
    };
    Some((text, rest.strip_prefix(b".")?))
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "0123456789abcdef0123456789abcdef01234567";

    fn entry(bc_version: u8, python: Option<[u8; 4]>) -> Vec<u8> {
        let mut bytes = vec![b'j', b'2', 0x80, 2, b'K', bc_version, b'.'];
        if let Some(python) = python {
            bytes.extend([0x80, 2, b'J']);
            bytes.extend(python);
            bytes.push(b'.');
        }
        bytes.extend([0x80, 2, b'X', 40, 0, 0, 0]);
        bytes.extend(SUM.as_bytes());
        bytes.extend([b'q', 0, b'.', 0xe3]);
        bytes
    }

    #[test]
    fn a_header_says_release_interpreter_and_checksum() {
        let now = entry(5, Some([14, 0, 0, 3]));
        let read = header(&now).unwrap();
        assert_eq!((read.bc_version, read.python), (5, Some((3, 14))));
        assert_eq!((read.checksum, now[read.code_at]), (SUM, 0xe3));
        let old = entry(2, None);
        assert_eq!(header(&old).unwrap().python, None);
    }

    #[test]
    fn what_is_cut_off_is_no_entry_and_a_later_release_is_an_unknown_one() {
        let now = entry(5, Some([14, 0, 0, 3]));
        for len in 0..now.len() - 1 {
            assert_eq!(form(&now[..len]), None, "{len}");
        }
        assert_eq!(form(&now), Some(Form::Known));
        assert_eq!(form(b"j2\x80\x02K\x06.anything"), Some(Form::Unknown));
        assert_eq!(form(b"j2\x80\x02K\x05.anything"), None);
        assert_eq!(form(b"j2 is a letter and a digit"), None);
    }

    #[test]
    fn the_key_is_a_run_of_exactly_40_digits() {
        let name = format!("__jinja2_{SUM}.cache");
        assert_eq!(key_of(name.as_bytes()), Some(SUM));
        assert!(is_default_name(name.as_bytes()));
        let other = format!("shop-{SUM}.jinja");
        assert_eq!(key_of(other.as_bytes()), Some(SUM));
        assert!(!is_default_name(other.as_bytes()));
        assert_eq!(key_of(format!("x{SUM}0").as_bytes()), None);
        assert_eq!(key_of(SUM.to_uppercase().as_bytes()), None);
    }
}
