//! Bytecode files of Python's import system (`importlib/_bootstrap_external.py`, PEP 552).
//!
//! | bytes | what |
//! |---|---|
//! | 0 to 3 | the interpreter's magic number, 16 bits, and `0d 0a` |
//! | 4 to 7 | flags: 0 (mtime and size), 1 (source hash, unchecked), 3 (source hash, checked) |
//! | 8 to 11 | the source's mtime in seconds, modulo 2^32; or the hash's first half |
//! | 12 to 15 | its size in bytes, modulo 2^32; or the hash's second half |
//! | 16 to the end | marshal of the code object |
//!
//! Numbers are little-endian. Interpreters before 3.7 have other headers and are not known.

use super::engine::Form;

/// The length of a header in bytes.
pub const HEADER_LEN: usize = 16;

/// How a bytecode file's name is put together: `<module>.<tag>[.opt-<level>].pyc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    /// The module's own name, without its packages.
    pub module: &'a [u8],
    /// The interpreter's cache tag, such as `cpython-314`; with pytest's addition where that has
    /// rewritten the module.
    pub tag: &'a [u8],
    /// The optimization level, if it is not the usual one.
    pub optimization: Option<&'a [u8]>,
}

/// What stands before a bytecode file's code object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The interpreter's magic number, such as 3627 of CPython 3.14.
    pub magic: u16,
    /// What ties the file to its source.
    pub check: Check,
}

/// What ties a bytecode file to its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The source's time of modification and its size, each modulo 2^32.
    MtimeSize {
        /// Whole seconds since 1970.
        mtime: u32,
        /// Bytes.
        size: u32,
    },
    /// The interpreter's own keyed hash of the source's bytes.
    Hash {
        /// The eight bytes, as `importlib.util.source_hash` returns them.
        hash: [u8; 8],
        /// The interpreter compares it when it imports the module; else it takes the file as it is.
        checked: bool,
    },
}

/// Reads a header; `None` if it is not one of an interpreter from 3.7 on.
pub fn header(content: &[u8]) -> Option<Header> {
    let [m0, m1, b'\r', b'\n', f0, f1, f2, f3, rest @ ..] = content else {
        return None;
    };
    let magic = u16::from_le_bytes([*m0, *m1]);
    let (a, rest) = rest.split_first_chunk::<4>()?;
    let b = rest.first_chunk::<4>()?;
    let hash = |checked| Check::Hash {
        hash: [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]],
        checked,
    };
    let check = match u32::from_le_bytes([*f0, *f1, *f2, *f3]) {
        0 => Check::MtimeSize {
            mtime: u32::from_le_bytes(*a),
            size: u32::from_le_bytes(*b),
        },
        1 => hash(false),
        3 => hash(true),
        _ => return None,
    };
    is_known(magic).then_some(Header { magic, check })
}

/// The interpreter that a magic number belongs to, from 3.7 to 3.14.
///
/// The numbers are those of CPython's `Include/internal/pycore_magic_number.h`: each release counts
/// on from a round number while it is developed.
pub fn python_of(magic: u16) -> Option<(u32, u32)> {
    let minor = match magic {
        3390..=3399 => 7,
        3400..=3419 => 8,
        3420..=3429 => 9,
        3430..=3449 => 10,
        3450..=3499 => 11,
        3500..=3549 => 12,
        3550..=3599 => 13,
        3600..=3649 => 14,
        _ => return None,
    };
    Some((3, minor))
}

/// Whether the header behind a magic number is the known one: CPython's from 3.7 on, and PyPy's.
fn is_known(magic: u16) -> bool {
    // PyPy 3.7 to 3.11 has numbers of its own, from 240 to 416, and the same header.
    python_of(magic).is_some() || (240..=416).contains(&magic)
}

/// Takes a bytecode file's name apart. A `.pyc` without a cache tag is none: it is what a program is
/// shipped as when it is shipped without its source, and nothing can make it again.
pub fn parse_name(name: &[u8]) -> Option<Name<'_>> {
    let stem = name.strip_suffix(b".pyc")?;
    let split = |text: &'_ [u8]| text.iter().rposition(|&byte| byte == b'.');
    let (stem, optimization) = match split(stem) {
        Some(dot) if stem[dot + 1..].starts_with(b"opt-") => (&stem[..dot], Some(&stem[dot + 5..])),
        _ => (stem, None),
    };
    let is_level = |level: &[u8]| !level.is_empty() && level.iter().all(u8::is_ascii_alphanumeric);
    if !optimization.is_none_or(is_level) {
        return None;
    }
    // A tag has no dot, but the version in pytest's addition has some.
    let dots = stem.iter().enumerate().filter(|(_, byte)| **byte == b'.');
    dots.map(|(dot, _)| (&stem[..dot], &stem[dot + 1..]))
        .find(|(module, tag)| !module.is_empty() && is_tag(tag))
        .map(|(module, tag)| Name {
            module,
            tag,
            optimization,
        })
}

/// `cpython-314`, `cpython-314t`, `pypy310`, or one of these and `-pytest-8.3.4`.
fn is_tag(tag: &[u8]) -> bool {
    let rest = tag
        .strip_prefix(b"cpython-")
        .or_else(|| tag.strip_prefix(b"pypy"))
        .or_else(|| tag.strip_prefix(b"graalpy"));
    let Some(rest) = rest else {
        return false;
    };
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let rest = &rest[digits..];
    let rest = rest.strip_prefix(b"t").unwrap_or(rest);
    let is_end = rest.is_empty() || rest.starts_with(b"-pytest-") || tag.starts_with(b"graalpy");
    digits >= 2 && is_end
}

pub(super) fn form(head: &[u8]) -> Option<Form> {
    match head {
        _ if header(head).is_some() => Some(Form::Known),
        // A later interpreter's: its mark, and as much as any header has.
        [m0, m1, b'\r', b'\n', _, _, _, _, ..]
            if head.len() >= HEADER_LEN && !is_known(u16::from_le_bytes([*m0, *m1])) =>
        {
            Some(Form::Unknown)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(name: &str) -> Option<(String, String, Option<String>)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let name = parse_name(name.as_bytes())?;
        Some((
            text(name.module),
            text(name.tag),
            name.optimization.map(text),
        ))
    }

    #[test]
    fn a_name_has_a_cache_tag() {
        let read = |name| tag(name).unwrap();
        let of = |module: &str, tag: &str, opt: Option<&str>| {
            (module.to_owned(), tag.to_owned(), opt.map(str::to_owned))
        };
        assert_eq!(read("a.cpython-314.pyc"), of("a", "cpython-314", None));
        assert_eq!(
            read("base.html.cpython-314t.opt-2.pyc"),
            of("base.html", "cpython-314t", Some("2"))
        );
        assert_eq!(
            read("test_a.cpython-311-pytest-8.3.4.pyc"),
            of("test_a", "cpython-311-pytest-8.3.4", None)
        );
        assert_eq!(read("a.pypy310.pyc"), of("a", "pypy310", None));
        for other in [
            "a.pyc",
            ".pyc",
            ".cpython-314.pyc",
            "a.opt-1.pyc",
            "a.cpython-314.opt-.pyc",
            "a.cpython-.pyc",
            "cpython-314.pyc",
            "a.cpython-314.pyo",
            "a.cpython-314.pyc.1",
            "a.jython-27.pyc",
        ] {
            assert_eq!(tag(other), None, "{other}");
        }
    }

    #[test]
    fn a_header_has_a_time_or_a_hash() {
        let with = |magic: u16, flags: u8| {
            let mut bytes = magic.to_le_bytes().to_vec();
            bytes.extend([b'\r', b'\n', flags, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
            bytes
        };
        let check = |flags| header(&with(3627, flags)).map(|header| header.check);
        assert_eq!(check(0), Some(Check::MtimeSize { mtime: 1, size: 2 }));
        let hash = [1, 0, 0, 0, 2, 0, 0, 0];
        assert_eq!(
            check(1),
            Some(Check::Hash {
                hash,
                checked: false
            })
        );
        assert_eq!(
            check(3),
            Some(Check::Hash {
                hash,
                checked: true
            })
        );
        assert_eq!(check(2), None);
        assert_eq!(header(&with(3627, 0)[..15]), None);
        assert_eq!(form(&with(3660, 8)), Some(Form::Unknown));
        assert_eq!(form(&with(3627, 8)), None);
        assert_eq!(form(&with(3660, 0)[..15]), None);
        assert_eq!(form(b"a text\r\n in which a line ends"), None);
    }
}
