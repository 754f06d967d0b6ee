//! What an entry says of itself, for each engine.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::engine::{Engine, Engines, Kind};
use super::source::{Fingerprint, SourceFile, sha1_hex};
use super::{Entry, importlib, jinja2, mako, marshal, name};

/// A cache's file, as far as it is needed to identify it.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// Its path beneath the cache's root.
    pub path: &'a Path,
    /// All of its content.
    pub content: &'a [u8],
    /// When it was last modified, in whole seconds since 1970, rounded down. Of use for Mako only.
    pub mtime: i64,
}

/// What an entry says of itself. All of it is a claim of whoever wrote the entry: nothing here was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Whose entry it is.
    pub engine: Engine,
    /// What else of the engine and the interpreter it is bound to: kida's version tag
    /// (`py314_kida0_12_0_ast2`), `bc5-py3.14` (Jinja2), `magic10` (Mako), `cpython-314.opt-1` (importlib).
    pub version: String,
    /// The template or module. Bytes that are not UTF-8 are replaced. kida's own file names have `_` for
    /// `/`, which is undone where the source's path shows how.
    pub name: String,
    /// The file that it was made of, if it names one.
    pub source: Option<SourceFile>,
    /// What it tells about that file's content, if it does.
    pub fingerprint: Option<Fingerprint>,
}

/// The longest name of a template that is handed out, in bytes.
const MAX_NAME: usize = 1024;

impl Engines {
    /// Identifies an entry; `None` if the file is not one by name and form, or of a format that
    /// is not known.
    ///
    /// Total over its input; takes time and memory as [`marshal::origin`] does. A code object that does
    /// not unmarshal (a later interpreter's, or damage) leaves the source unknown and the rest as it is.
    pub fn identify(&self, file: &File<'_>) -> Option<Identity> {
        match self.recognise(file.path, file.content) {
            Kind::Entry(Engine::Kida) => self.identify_kida(file),
            Kind::Entry(Engine::Jinja2) => identify_jinja2(file),
            Kind::Entry(Engine::Mako) => identify_mako(file),
            Kind::Entry(Engine::Importlib) => identify_importlib(file),
            _ => None,
        }
    }

    fn identify_kida(&self, file: &File<'_>) -> Option<Identity> {
        let entry = self.kida.parse_name(file.path.file_name()?)?;
        let code = Entry::parse(file.content).ok().map(|entry| entry.code);
        let origin = code.and_then(|code| marshal::origin(code).ok());
        let file_name = origin.and_then(|origin| origin.file_name);
        let name = file_name
            .as_deref()
            .and_then(|path| {
                suffixes(path)
                    .find(|suffix| name::flat_name(suffix).is_ok_and(|flat| flat == entry.name))
            })
            .unwrap_or(entry.name);
        Some(Identity {
            engine: Engine::Kida,
            version: entry.version.to_owned(),
            name: name.to_owned(),
            source: file_name.clone().and_then(SourceFile::named),
            fingerprint: Fingerprint::sha256(entry.source_hash),
        })
    }
}

fn identify_jinja2(file: &File<'_>) -> Option<Identity> {
    let header = jinja2::header(file.content)?;
    let key = jinja2::key_of(file.path.file_name()?.as_bytes())?;
    let origin = marshal::origin(&file.content[header.code_at..]).ok();
    let (file_name, texts) = match origin {
        Some(origin) => (origin.file_name, origin.texts),
        None => (None, Vec::new()),
    };
    // Jinja2's key is SHA-1 of the template's name, and of `|` and the file's path if it has one:
    // so a name can be tried. It is a constant of the module, and mostly an end of the path.
    let is_name = |name: &str| {
        let with_file = file_name
            .as_deref()
            .is_some_and(|path| sha1_hex(&[name.as_bytes(), b"|", path]) == key);
        with_file || sha1_hex(&[name.as_bytes()]) == key
    };
    let name = texts
        .iter()
        .map(String::as_str)
        .filter(|text| text.len() <= MAX_NAME)
        .find(|text| is_name(text))
        .or_else(|| suffixes(file_name.as_deref()?).find(|name| is_name(name)))
        .unwrap_or(key);
    let version = match header.python {
        Some((major, minor)) => format!("bc{}-py{major}.{minor}", header.bc_version),
        None => format!("bc{}", header.bc_version),
    };
    Some(Identity {
        engine: Engine::Jinja2,
        version,
        name: name.to_owned(),
        source: file_name.clone().and_then(SourceFile::named),
        fingerprint: Some(Fingerprint::Sha1(header.checksum.to_owned())),
    })
}

fn identify_mako(file: &File<'_>) -> Option<Identity> {
    let header = mako::header(file.content)?;
    let details = mako::details(&header);
    let path = file.path.as_os_str().as_bytes();
    let stem = path.strip_suffix(b".py").unwrap_or(path);
    Some(Identity {
        engine: Engine::Mako,
        version: format!("magic{}", header.magic),
        name: details.uri.unwrap_or_else(|| lossy(stem)),
        source: details.file_name.and_then(SourceFile::named),
        fingerprint: Some(Fingerprint::Generated {
            magic: header.magic,
            mtime: file.mtime,
        }),
    })
}

fn identify_importlib(file: &File<'_>) -> Option<Identity> {
    let name = importlib::parse_name(file.path.file_name()?.as_bytes())?;
    let header = importlib::header(file.content)?;
    let folder = file.path.parent().unwrap_or(Path::new(""));
    let code = file.content.get(importlib::HEADER_LEN..)?;
    let file_name = marshal::origin(code)
        .ok()
        .and_then(|origin| origin.file_name);
    let module = OsStr::from_bytes(name.module);
    let source = module_source(folder, module, file_name);
    let version = match name.optimization {
        Some(level) => [name.tag, b".opt-", level].concat(),
        None => name.tag.to_vec(),
    };
    let shown = match folder.file_name() {
        Some(last) if last == PYCACHE => folder.parent().unwrap_or(folder).join(module),
        _ => folder.join(module),
    };
    Some(Identity {
        engine: Engine::Importlib,
        version: lossy(&version),
        name: lossy(shown.as_os_str().as_bytes()),
        source: Some(source),
        fingerprint: Some(match header.check {
            importlib::Check::MtimeSize { mtime, size } => Fingerprint::MtimeSize { mtime, size },
            importlib::Check::Hash { hash, checked } => Fingerprint::Keyed {
                magic: header.magic,
                hash,
                checked,
            },
        }),
    })
}

/// Where Python keeps bytecode, unless told otherwise.
const PYCACHE: &str = "__pycache__";

/// The module's source, as the interpreter finds it from the bytecode's path (`source_from_cache`).
///
/// - In a `__pycache__` the source lies in the folder above, which is in the cache as well.
/// - Else the cache is what PYTHONPYCACHEPREFIX names: the source's folder is the bytecode's, beneath the
///   prefix. The prefix may be the cache's root or a folder in it. Which it is, the code object's own path
///   shows, if its end is the bytecode's; else (it was compiled elsewhere, and moved) the root is taken.
fn module_source(folder: &Path, module: &OsStr, file_name: Option<Vec<u8>>) -> SourceFile {
    let mut source = module.to_owned();
    source.push(".py");
    if folder.file_name() == Some(OsStr::new(PYCACHE)) {
        let above = folder.parent().unwrap_or(Path::new(""));
        return SourceFile::InCache(above.join(source));
    }
    let from_root = Path::new("/").join(folder).join(source);
    let named = file_name.map(|path| PathBuf::from(OsString::from_vec(path)));
    match named {
        Some(named) if named.is_absolute() && from_root.ends_with(relative(&named)) => {
            SourceFile::At(named)
        }
        _ => SourceFile::At(from_root),
    }
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// The ends of a path at its separators, the longest first: what a template in it may be called. Not
/// those that are not UTF-8 or too long for a name.
fn suffixes(path: &[u8]) -> impl Iterator<Item = &str> {
    let starts = std::iter::once(0).chain(
        path.iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .map(|(at, _)| at + 1),
    );
    starts
        .filter(move |&at| (1..=MAX_NAME).contains(&(path.len() - at)))
        .filter_map(move |at| std::str::from_utf8(&path[at..]).ok())
}

fn lossy(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(MAX_NAME)];
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
