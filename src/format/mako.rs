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
