//! What a file is: whose entry, whose temporary file, or nobody's.
//!
//! A file is an engine's entry only if its name *and* the form of its first bytes say so. Everything
//! else is foreign, whatever it is called: a name alone is never reason enough to remove a file.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::Serialize;

use super::frame::{Format, is_unknown_format};
use super::{Pattern, Temporary, importlib, jinja2, mako};

/// How many of a file's first bytes [`Engines::recognise`] looks at; of a shorter file, all.
pub const HEAD_LEN: usize = 1024;

/// Who writes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// kida's bytecode cache; files named by a [`Pattern`].
    Kida,
    /// Jinja2's `FileSystemBytecodeCache`: `__jinja2_<40 hex>.cache`, or another pattern of its.
    Jinja2,
    /// Mako's module directory: Python modules that Mako has generated.
    Mako,
    /// Python's import system: `<module>.cpython-314.pyc` and its like.
    Importlib,
}

impl Engine {
    /// All of them, in the order in which [`Engines::recognise`] asks.
    pub const ALL: [Self; 4] = [Self::Kida, Self::Jinja2, Self::Mako, Self::Importlib];

    /// Its name in listings, metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kida => "kida",
            Self::Jinja2 => "jinja2",
            Self::Mako => "mako",
            Self::Importlib => "importlib",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What [`Engines::recognise`] takes a file for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An entry, by name and by form.
    Entry(Engine),
    /// An entry of a format that this release does not know: the name is the engine's and the first
    /// bytes carry its mark with an unknown number (`[n]KDA`, another bytecode version of Jinja2's, a
    /// later interpreter's magic number). It is an entry with every rule but one: of its content
    /// nothing is known but its digest, so it is never damaged for any other reason.
    UnknownFormat(Engine),
    /// A file that an engine has not renamed yet, or never will.
    Temporary(Engine),
    /// A name that this engine alone gives, on something that has not its form: an entry that was cut
    /// off, zeroed or overwritten, or a foreign file that has taken the name. The engine would not use it.
    /// The content does not tell the two apart, so such a file is nothing that may be *removed*; whether it may
    /// be served is for its digest to say.
    Misformed(Engine),
    /// Nobody's.
    Foreign,
}

impl Kind {
    /// The engine, if it is one's entry or temporary file; `None` for [`Misformed`](Self::Misformed),
    /// which is nobody's until more is known.
    pub fn engine(self) -> Option<Engine> {
        match self {
            Self::Entry(engine) | Self::UnknownFormat(engine) | Self::Temporary(engine) => {
                Some(engine)
            }
            Self::Misformed(_) | Self::Foreign => None,
        }
    }

    /// Whether it is an entry, of a known format or not: what alone may be evicted, beside abandoned
    /// temporary files.
    pub fn is_entry(self) -> bool {
        matches!(self, Self::Entry(_) | Self::UnknownFormat(_))
    }

    /// Whether nothing of it may be removed: neither an entry nor a temporary file.
    pub fn is_foreign(self) -> bool {
        matches!(self, Self::Misformed(_) | Self::Foreign)
    }
}

/// What a name alone says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind<'a> {
    /// An entry of this engine, if the content agrees. `exclusive`: nobody else names files so.
    Entry {
        /// The engine.
        engine: Engine,
        /// Nobody else names files so (a kida or Jinja2 name, a `.pyc` with a cache tag); not so a `.py`, which may be anybody's.
        exclusive: bool,
    },
    /// A temporary file.
    Temporary(Temporary<'a>),
    /// Nothing that an engine would make.
    Foreign,
}

/// What an engine's mark in the first bytes says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Known,
    Unknown,
}

/// All engines, with what can be configured about their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Engines {
    /// How kida's entries are named.
    pub kida: Pattern,
}

impl Engines {
    /// The engines, kida's entries being named by `pattern`.
    pub fn new(pattern: Pattern) -> Self {
        Self { kida: pattern }
    }

    /// What a file's name says of it. Folders do not matter: each engine's entries may lie in any.
    pub fn by_name<'a>(&self, path: &'a Path) -> NameKind<'a> {
        let Some(name) = path.file_name() else {
            return NameKind::Foreign;
        };
        if let Some(temporary) = self.kida.temporary_name(name) {
            return NameKind::Temporary(temporary);
        }
        match Engine::ALL
            .into_iter()
            .find_map(|engine| Some((engine, self.names(engine, name)?)))
        {
            Some((engine, exclusive)) => NameKind::Entry { engine, exclusive },
            None => NameKind::Foreign,
        }
    }

    /// What a file is, from its path beneath the cache's root and its first [`HEAD_LEN`] bytes (all
    /// of them if it is shorter).
    ///
    /// An engine's temporary name is enough where no one else would choose it. Mako's is any Python
    /// program's (`tmpXXXXXXXX`), so there the content must be a generated module's, or the beginning
    /// of one: nothing at all, or what was cut off, or zeros where the data never came to the disk.
    pub fn recognise(&self, path: &Path, head: &[u8]) -> Kind {
        let Some(name) = path.file_name() else {
            return Kind::Foreign;
        };
        let head = &head[..head.len().min(HEAD_LEN)];
        if let Some(temporary) = self.kida.temporary_name(name) {
            let is_mine = temporary.engine != Engine::Mako || mako::may_begin(head);
            return if is_mine {
                Kind::Temporary(temporary.engine)
            } else {
                Kind::Foreign
            };
        }
        let mut misformed = None;
        for engine in Engine::ALL {
            let Some(exclusive) = self.names(engine, name) else {
                continue;
            };
            match form(engine, head) {
                Some(Form::Known) => return Kind::Entry(engine),
                Some(Form::Unknown) => return Kind::UnknownFormat(engine),
                None if exclusive => misformed = misformed.or(Some(engine)),
                None => {}
            }
        }
        misformed.map_or(Kind::Foreign, Kind::Misformed)
    }

    /// Whether the engine gives such a name to an entry, and then whether it alone does.
    fn names(&self, engine: Engine, name: &OsStr) -> Option<bool> {
        match engine {
            Engine::Kida => self.kida.parse_name(name).map(|_| true),
            Engine::Jinja2 => {
                jinja2::key_of(name.as_bytes()).map(|_| jinja2::is_default_name(name.as_bytes()))
            }
            Engine::Mako => mako::is_name(name.as_bytes()).then_some(false),
            Engine::Importlib => importlib::parse_name(name.as_bytes()).map(|_| true),
        }
    }
}

/// Whether the first bytes are the engine's.
fn form(engine: Engine, head: &[u8]) -> Option<Form> {
    match engine {
        Engine::Kida if Format::of_head(head).is_some() => Some(Form::Known),
        Engine::Kida => is_unknown_format(head).then_some(Form::Unknown),
        Engine::Jinja2 => jinja2::form(head),
        Engine::Mako => mako::header(head).map(|_| Form::Known),
        Engine::Importlib => importlib::form(head),
    }
}

#[cfg(test)]
mod tests;
