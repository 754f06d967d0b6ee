//! Modules that Mako generates (`mako/codegen.py`).
//!
//! A module begins, after an optional `coding` comment and imports from `__future__`, with
//!
//! ```python
//! from mako import runtime, filters, cache
//! UNDEFINED = runtime.UNDEFINED
//! STOP_RENDERING = runtime.STOP_RENDERING
//! __M_dict_builtin = dict
//! __M_locals_builtin = locals
//! _magic_number = 10
//! _modified_time = 1764142395.123
//! _enable_loop = True
//! _template_filename = '/srv/app/templates/base.html'
//! _template_uri = 'base.html'
//! _source_encoding = 'utf-8'
//! ```
//!
//! which Mako has written so, with a line more or less, since 0.1. The text is read line by line and
//! never compiled.

use super::marshal::MAX_LEN;
use super::utf8::path_bytes;

/// The first statement of every module.
const IMPORT: &[u8] = b"from mako import ";

/// The statement that says: what follows is generated.
const UNDEFINED: &[u8] = b"UNDEFINED = runtime.UNDEFINED";

/// Lines of a header, at most: 20 of a module with every option.
const MAX_LINES: usize = 40;

/// What the header of a generated module says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The generator's number; 10 since Mako 0.9.
    pub magic: u32,
    /// What follows the line with the number.
    pub rest: &'a [u8],
}

/// Whether a file of this name may be a generated module.
pub fn is_name(name: &[u8]) -> bool {
    name.len() > 3 && name.ends_with(b".py")
}

/// Reads the beginning of a module's header; `None` if Mako has not generated it.
pub fn header(content: &[u8]) -> Option<Header<'_>> {
    let mut rest = content;
    let mut seen = Seen::default();
    for _ in 0..MAX_LINES {
        let (line, after) = split_line(rest)?;
        rest = after;
        if let Some(number) = value(line, b"_magic_number")
            && seen == Seen::Undefined
        {
            let magic = std::str::from_utf8(number).ok()?.parse().ok()?;
            return Some(Header { magic, rest });
        }
        seen = seen.after(line)?;
    }
    None
}

/// Whether `head` could be the beginning of a generated module: a whole header, or one that ends too
/// early. Nothing at all could be, and so could zeros, which are left where the data never came to the disk.
pub fn may_begin(head: &[u8]) -> bool {
    if header(head).is_some() || head.iter().all(|&byte| byte == 0) {
        return true;
    }
    let mut rest = head;
    let mut seen = Seen::default();
    while let Some((line, after)) = split_line(rest) {
        match seen.after(line) {
            Some(next) => seen = next,
            None => return false,
        }
        rest = after;
    }
    match seen {
        Seen::Nothing => [IMPORT, b"# -*- coding:", b"from __future__ import "]
            .iter()
            .any(|begin| begin.starts_with(rest) || rest.starts_with(begin)),
        Seen::Import => UNDEFINED.starts_with(rest),
        Seen::Undefined => head.len() < super::engine::HEAD_LEN,
    }
}

/// How far a header has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Seen {
    #[default]
    Nothing,
    Import,
    Undefined,
}

impl Seen {
    /// What is known after one more line; `None` if no generated module has such a line there.
    fn after(self, line: &[u8]) -> Option<Self> {
        let is_before =
            line.is_empty() || line.starts_with(b"#") || line.starts_with(b"from __future__ ");
        match self {
            Self::Nothing if line.starts_with(IMPORT) => Some(Self::Import),
            Self::Nothing if is_before => Some(Self::Nothing),
            Self::Import if line == UNDEFINED => Some(Self::Undefined),
            Self::Undefined => Some(Self::Undefined),
            _ => None,
        }
    }
}

/// What a header's further lines say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Details {
    /// `_modified_time`: when the module was generated, in seconds since 1970.
    pub generated: Option<f64>,
    /// `_template_filename` as the bytes of a path, of at most 4096; `None` for a template without a file.
    pub file_name: Option<Vec<u8>>,
    /// `_template_uri`: the template's name, of at most 4096 bytes.
    pub uri: Option<String>,
}

/// Reads what follows the number in a header, as far as it is there.
pub fn details(header: &Header<'_>) -> Details {
    let mut details = Details::default();
    let mut rest = header.rest;
    for _ in 0..MAX_LINES {
        let Some((line, after)) = split_line(rest) else {
            break;
        };
        rest = after;
        if let Some(time) = value(line, b"_modified_time") {
            let time = std::str::from_utf8(time).ok();
            details.generated = time.and_then(|time| time.parse().ok());
        } else if let Some(literal) = value(line, b"_template_filename") {
            details.file_name = literal_text(literal).and_then(|text| path_bytes(&text));
        } else if let Some(literal) = value(line, b"_template_uri") {
            details.uri = literal_text(literal).map(|text| String::from_utf8_lossy(&text).into());
        } else if value(line, b"_source_encoding").is_some() || value(line, b"_exports").is_some() {
            // The header's last lines; what follows is the template's own.
            break;
        }
    }
    details
}

/// The text of a string literal as Python's `repr` writes it, in UTF-8 in which lone surrogates may
/// stand; `None` if it is anything else, or longer than a path may be.
fn literal_text(literal: &[u8]) -> Option<Vec<u8>> {
    let literal = literal.strip_prefix(b"u").unwrap_or(literal);
    let (&quote, rest) = literal.split_first()?;
    let body = rest.strip_suffix(&[quote])?;
    if !matches!(quote, b'\'' | b'"') || body.len() > 4 * MAX_LEN {
        return None;
    }
    let mut text = Vec::with_capacity(body.len());
    let mut bytes = body.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte == quote {
            return None;
        }
        if byte != b'\\' {
            text.push(byte);
            continue;
        }
        let digits = match bytes.next()? {
            b'n' => Err(b'\n'),
            b'r' => Err(b'\r'),
            b't' => Err(b'\t'),
            other @ (b'\\' | b'\'' | b'"') => Err(other),
            b'x' => Ok(2),
            b'u' => Ok(4),
            b'U' => Ok(8),
            _ => return None,
        };
        match digits {
            Err(byte) => text.push(byte),
            Ok(digits) => {
                let mut code = 0u32;
                for _ in 0..digits {
                    code = code << 4 | char::from(bytes.next()?).to_digit(16)?;
                }
                push_code(&mut text, code)?;
            }
        }
    }
    (text.len() <= MAX_LEN).then_some(text)
}

/// Adds a code point in UTF-8, a surrogate included.
fn push_code(text: &mut Vec<u8>, code: u32) -> Option<()> {
    match char::from_u32(code) {
        Some(c) => text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        None if code < 0x11_0000 => text.extend([
            0xe0 | (code >> 12) as u8,
            0x80 | (code >> 6 & 0x3f) as u8,
            0x80 | (code & 0x3f) as u8,
        ]),
        None => return None,
    }
    Some(())
}

/// What follows `name =` on a line, without the spaces around it.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(name)?.trim_ascii();
    Some(rest.strip_prefix(b"=")?.trim_ascii())
}

/// The first line without its end, and what follows it; `None` if it does not end.
fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|&byte| byte == b'\n')?;
    let line = &text[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &str = "# -*- coding:utf-8 -*-\nfrom __future__ import annotations\nfrom mako import runtime, filters, cache\nUNDEFINED = runtime.UNDEFINED\nSTOP_RENDERING = runtime.STOP_RENDERING\n__M_dict_builtin = dict\n__M_locals_builtin = locals\n_magic_number = 10\n_modified_time = 1764142395.123\n";

    #[test]
    fn a_generated_module_is_known_by_its_header() {
        assert_eq!(header(MODULE.as_bytes()).unwrap().magic, 10);
        for text in [
            "",
            "import os\n",
            "from mako import runtime\nprint()\n_magic_number = 10\n",
            "# from mako import runtime\n_magic_number = 10\n",
            "from mako import runtime, filters, cache\nUNDEFINED = runtime.UNDEFINED\n_magic_number = ten\n",
        ] {
            assert_eq!(header(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_template_is_read_from_its_literals() {
        let read = |lines: &str| details(&header(format!("{MODULE}{lines}").as_bytes()).unwrap());
        let all = read(
            "_enable_loop = True\n_template_filename = '/srv/t/\\xe9\\'\\u20ac\\udcff.html'\n_template_uri = \"a'b.html\"\n_source_encoding = 'utf-8'\n",
        );
        assert_eq!(all.generated, Some(1764142395.123));
        assert_eq!(
            all.file_name.unwrap(),
            "/srv/t/é'€"
                .bytes()
                .chain(*b"\xff.html")
                .collect::<Vec<_>>()
        );
        assert_eq!(all.uri.unwrap(), "a'b.html");
        let old = read("_template_filename=u'/a'\n_template_uri=u'a'\n");
        assert_eq!(old.file_name.unwrap(), b"/a");
        let none = read("_template_filename = None\n_template_uri = 'memory:0x1'\n");
        assert_eq!(none.file_name, None);
        for bad in [
            "'a",
            "a'",
            "'a'b'",
            "'\\q'",
            "'\\x0'",
            "'\\U00110000'",
            "''.join(x)",
            "",
        ] {
            let read = read(&format!("_template_filename = {bad}\n"));
            assert_eq!(read.file_name, None, "{bad}");
        }
        let long = read(&format!(
            "_template_filename = '/{}'\n",
            "a".repeat(1 << 20)
        ));
        assert_eq!(long.file_name, None);
        let after = read("_source_encoding = 'utf-8'\n_template_uri = 'x'\n");
        assert_eq!(after.uri, None);
    }

    #[test]
    fn each_beginning_of_a_module_may_begin_one_and_other_texts_may_not() {
        for len in 0..MODULE.len() {
            assert!(may_begin(&MODULE.as_bytes()[..len]), "{len}");
        }
        assert!(may_begin(&[0; 100]));
        for text in ["import os\n", "x", "from mako import x\nprint(1)\n", "\0x"] {
            assert!(!may_begin(text.as_bytes()), "{text}");
        }
    }
}
