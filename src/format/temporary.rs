//! The names that engines give to a file until they rename it to its final name.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::LazyLock;

use super::{Engine, Pattern, jinja2};

/// A temporary name, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Temporary<'a> {
    /// Who names files so.
    pub engine: Engine,
    /// The final name, where the temporary one contains all of it (not so for [`Engine::Mako`] and for
    /// kida's oldest releases).
    pub final_name: Option<&'a OsStr>,
}

/// [`Pattern::temporary_name`] for the engine's own pattern.
pub fn temporary_name(name: &OsStr) -> Option<Temporary<'_>> {
    static DEFAULT: LazyLock<Pattern> = LazyLock::new(Pattern::default);
    DEFAULT.temporary_name(name)
}

impl Pattern {
    /// What engine gave a file this name for the time until it is renamed; `None` for an ordinary file.
    ///
    /// A file taken for temporary is never written to disk, so only names that an engine makes count,
    /// and an ending alone is not enough. `XXXXXXXX` is eight of Python's `[a-z0-9_]`, and before it:
    ///
    /// | engine | the name must be |
    /// |---|---|
    /// | kida | an entry's name, or one with the pattern's beginning and end; then `.XXXXXXXX.tmp` |
    /// | kida, oldest | an entry's name with `.tmp` in place of its last extension |
    /// | Jinja2 | a name with a run of 40 hex digits that begins with `__jinja2_` or ends with `.cache`; then `XXXXXXXX.tmp` |
    /// | importlib | a name that ends with `.pyc`; then `.` and 7 to 20 digits, not led by a 0 |
    /// | Mako | `tmpXXXXXXXX` and nothing else |
    ///
    /// So `photo.tmp`, `photo.download.tmp`, `x.pyc.1` and `tmpfile` are ordinary. A name of Mako's
    /// form is Python's own for a temporary file, whoever made it.
    pub fn temporary_name<'a>(&self, name: &'a OsStr) -> Option<Temporary<'a>> {
        let bytes = name.as_bytes();
        let found = |engine, final_name: Option<&'a [u8]>| {
            Some(Temporary {
                engine,
                final_name: final_name.map(OsStr::from_bytes),
            })
        };
        if let Some(stem) = bytes.strip_suffix(b".tmp") {
            if let Some(rest) = strip_random(stem) {
                match rest.strip_suffix(b".") {
                    Some(entry) if self.frames(entry) => return found(Engine::Kida, Some(entry)),
                    None if is_jinja2_entry(rest) => return found(Engine::Jinja2, Some(rest)),
                    _ => {}
                }
            }
            let entry = [stem, self.last_extension()?].concat();
            self.parse_name(OsStr::from_bytes(&entry))?;
            return found(Engine::Kida, None);
        }
        if let Some(entry) = strip_address(bytes) {
            return found(Engine::Importlib, Some(entry));
        }
        if bytes.strip_prefix(b"tmp").and_then(strip_random) == Some(b"") {
            return found(Engine::Mako, None);
        }
        None
    }

    /// Whether `name` is an entry's, as far as can be told: a hash need not be hex, so the pattern's
    /// beginning and end are enough where it has any.
    fn frames(&self, name: &[u8]) -> bool {
        let (prefix, suffix) = (self.prefix().as_bytes(), self.suffix().as_bytes());
        let framed = name
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.ends_with(suffix));
        let is_bare = prefix.is_empty() || suffix.is_empty();
        framed && (!is_bare || self.parse_name(OsStr::from_bytes(name)).is_some())
    }

    /// `.pyc` of the default pattern; what Python's `Path.with_suffix` would replace.
    fn last_extension(&self) -> Option<&[u8]> {
        let suffix = self.suffix();
        suffix.rfind('.').map(|at| &suffix.as_bytes()[at..])
    }
}

/// Takes eight characters of `tempfile`'s alphabet off the end.
fn strip_random(name: &[u8]) -> Option<&[u8]> {
    let (rest, random) = name.split_at_checked(name.len().checked_sub(8)?)?;
    let is_random = random
        .iter()
        .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    is_random.then_some(rest)
}

/// Takes `.<decimal>` off the end of a bytecode file's name. An object's address has seven digits at
/// the very least, which tells it from a numbered backup.
fn strip_address(name: &[u8]) -> Option<&[u8]> {
    let dot = name.iter().rposition(|&b| b == b'.')?;
    let (entry, digits) = (&name[..dot], &name[dot + 1..]);
    let is_address = (7..=20).contains(&digits.len())
        && digits.iter().all(u8::is_ascii_digit)
        && digits[0] != b'0';
    let is_bytecode = entry.len() > 4 && entry.ends_with(b".pyc");
    (is_address && is_bytecode).then_some(entry)
}

/// A name that has one of Jinja2's cache keys and its default pattern's beginning or end. The key alone
/// is not enough: git names its temporary files by 40 hex digits, too.
fn is_jinja2_entry(name: &[u8]) -> bool {
    let framed = name.starts_with(b"__jinja2_") || name.ends_with(b".cache");
    framed && jinja2::key_of(name).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENTRY: &str = "__kida_py314_base.html_0123456789abcdef.pyc";
    const JINJA2: &str = "__jinja2_0123456789abcdef0123456789abcdef01234567.cache";

    fn engine(name: &str) -> Option<(Engine, Option<&str>)> {
        let found = temporary_name(OsStr::new(name))?;
        Some((found.engine, found.final_name.map(|n| n.to_str().unwrap())))
    }

    #[test]
    fn each_engines_names_are_known() {
        let name = format!("{ENTRY}.a1_b2c3d.tmp");
        assert_eq!(engine(&name), Some((Engine::Kida, Some(ENTRY))));
        let name = "__kida_py314_x_not a hex hash.pyc.abcdefgh.tmp";
        assert_eq!(engine(name).map(|found| found.0), Some(Engine::Kida));
        let name = ENTRY.replace(".pyc", ".tmp");
        assert_eq!(engine(&name), Some((Engine::Kida, None)));
        let name = format!("{JINJA2}a1_b2c3d.tmp");
        assert_eq!(engine(&name), Some((Engine::Jinja2, Some(JINJA2))));
        let name = "base.html.cpython-314.pyc.140243719287216";
        assert_eq!(
            engine(name),
            Some((Engine::Importlib, Some("base.html.cpython-314.pyc")))
        );
        assert_eq!(engine("tmpa1_b2c3d"), Some((Engine::Mako, None)));
    }

    #[test]
    fn ordinary_files_are_not_temporary() {
        for name in [
            "",
            ".tmp",
            "tmp",
            "photo.tmp",
            "photo.download.tmp",
            "tmpfile",
            "tmpfiles.d",
            "tmpABCDEFGH",
            "tmpa1_b2c3d4",
            "x.pyc",
            "x.pyc.1",
            "x.pyc.20240101120000000000000",
            "x.pyc.0123456789",
            ".pyc.12345678",
            "x.log.12345678",
            ENTRY,
            JINJA2,
            "__kida_py314_x.html_0123456789abcdef.pyc.ABCDEFGH.tmp",
            "x.pyc.a1_b2c3d.tmp",
            "x.cachea1_b2c3d.tmp",
            "base.html.py",
        ] {
            assert_eq!(engine(name), None, "{name}");
        }
    }

    #[test]
    fn another_pattern_has_its_own_temporary_names() {
        let pattern: Pattern = "{name}-{version}-{hash}".parse().unwrap();
        let kida = |name| pattern.temporary_name(OsStr::new(name)).map(|t| t.engine);
        assert_eq!(
            kida("x-py314-0123456789abcdef.a1_b2c3d.tmp"),
            Some(Engine::Kida)
        );
        assert_eq!(kida("photo.download.tmp"), None);
        assert_eq!(kida("photo.tmp"), None);
        assert_eq!(kida(&format!("{ENTRY}.a1_b2c3d.tmp")), None);
    }

    proptest! {
        #[test]
        fn any_name_is_judged_without_a_panic(name in prop::collection::vec(any::<u8>(), 0..80)) {
            temporary_name(OsStr::from_bytes(&name));
        }
    }
}
