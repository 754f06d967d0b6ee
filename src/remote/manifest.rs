//! What a pack says of itself, and a namespace's epoch: JSON texts, each in an [`envelope`](super::envelope).

use std::collections::HashSet;
use std::path::{Component, Path};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::envelope::{hex, sha256};
use super::reject::{Reason, Reject};
use crate::format::{Engine, Engines, NameKind};
use crate::layout::PRIVATE_DIR;

/// The format that this release writes and reads.
pub const FORMAT: u32 = 1;

/// The largest manifest object, in bytes.
pub const MOST_MANIFEST: u64 = 16 << 20;
/// The most entries of a pack.
pub const MOST_ENTRIES: usize = 20_000;
/// The largest entry, in bytes.
pub const MOST_ENTRY: u64 = 32 << 20;
/// The largest content of a pack, all entries together, in bytes.
pub const MOST_CONTENT: u64 = 64 << 20;
/// The largest body, in bytes: content that cannot be compressed grows a little.
pub const MOST_BODY: u64 = MOST_CONTENT + (1 << 20);
/// The longest path, in bytes, and the longest part of one.
const MOST_PATH: usize = 1024;
const MOST_NAME: usize = 255;
/// The longest of the other texts, in bytes.
const MOST_TEXT: usize = 256;
/// The most packs that a snapshot replaces.
pub const MOST_REPLACED: usize = 100_000;

/// A namespace: a cache's name in a store, one for each application and configuration of its environment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Namespace(String);

/// A text that cannot name a namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' cannot name a namespace: write 1 to 100 letters, digits, '.', '_' or '-', beginning with a letter or a digit"
)]
pub struct NamespaceError(String);

impl std::str::FromStr for Namespace {
    type Err = NamespaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        let first = text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        if first && rest && text.len() <= 100 {
            Ok(Self(text.to_owned()))
        } else {
            Err(NamespaceError(text.to_owned()))
        }
    }
}

impl std::fmt::Display for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Namespace {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A pack's name: the SHA-256 of its manifest's text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackId(pub [u8; 32]);

impl PackId {
    /// That of a manifest's text.
    pub fn of(text: &[u8]) -> Self {
        Self(sha256(text))
    }

    /// Reads 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        parse_sha256(text).map(Self)
    }
}

impl std::fmt::Display for PackId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl std::fmt::Debug for PackId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Reads 64 lower-case hex digits.
pub fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// One entry of a pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackEntry {
    /// Where it belongs, from the cache's root.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, as 64 hex digits.
    pub sha256: String,
    /// When it was last modified, in nanoseconds since 1970.
    pub mtime: i64,
    /// Whose entry it is: `kida`, `jinja2`, `mako`, `importlib`.
    pub engine: String,
    /// The interpreter's or the engine's version tag; empty for what serves any.
    pub version: String,
    /// The engine's own key: kida's hashes, Jinja2's key, the module of the others.
    pub key: String,
}

/// The body of a pack, which holds the content of its entries one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, as 64 hex digits.
    pub sha256: String,
    /// The size of what is compressed in it: the sum of the entries' sizes.
    pub content: u64,
}

/// A pack's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The namespace it was made for.
    pub namespace: String,
    /// The namespace's epoch then: `remote clear` begins the next one.
    pub epoch: u64,
    /// When it was made, in seconds since 1970, by its maker's clock. Nothing is decided by it but what `remote gc
    /// --max-age` removes.
    pub created: u64,
    /// The name of the host that made it.
    pub host: String,
    /// The program that made it, with its version.
    pub tool: String,
    /// The packs that this one and the rest of its snapshot replace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<String>,
    /// The body.
    pub body: Body,
    /// The entries, in the order of the body.
    pub entries: Vec<PackEntry>,
}

/// A namespace's epoch: packs of an earlier one are not taken any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epoch {
    /// [`FORMAT`].
    pub format: u32,
    /// The namespace.
    pub namespace: String,
    /// Its number; a namespace that was never cleared is in epoch 0.
    pub epoch: u64,
    /// When it began, in seconds since 1970.
    pub created: u64,
    /// The name of the host that began it.
    pub host: String,
    /// The program that made it, with its version.
    pub tool: String,
}

/// The format alone, to tell a later one from rubbish.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

fn malformed(detail: impl Into<String>) -> Reject {
    Reject::new(Reason::Malformed, detail)
}

fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Reject> {
    match serde_json::from_slice::<AnyFormat>(text) {
        Ok(AnyFormat { format }) if format != FORMAT => {
            return Err(Reject::new(
                Reason::UnknownFormat,
                format!("it is of format {format}: install a newer kidafs"),
            ));
        }
        _ => {}
    }
    serde_json::from_slice(text).map_err(|error| malformed(format!("it cannot be read: {error}")))
}

impl Epoch {
    /// Reads one and checks that it is `namespace`'s.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(text: &[u8], namespace: &Namespace) -> Result<Self, Reject> {
        let epoch: Self = parse(text)?;
        check_namespace(&epoch.namespace, namespace)?;
        Ok(epoch)
    }
}

fn check_namespace(said: &str, wanted: &Namespace) -> Result<(), Reject> {
    if said == wanted.as_str() {
        return Ok(());
    }
    Err(Reject::new(
        Reason::WrongNamespace,
        format!("it was made for the namespace '{}'", said.escape_debug()),
    ))
}

impl Manifest {
    /// Reads a manifest and checks everything that it says, but no content: its namespace, sizes within the limits
    /// and in agreement, and paths that stay in the cache and are names of their engines' entries.
    ///
    /// Costs no more memory than a small multiple of the text's length.
    ///
    /// # Errors
    /// A [`Reject`] with its reason.
    pub fn read(text: &[u8], namespace: &Namespace, engines: &Engines) -> Result<Self, Reject> {
        let manifest: Self = parse(text)?;
        check_namespace(&manifest.namespace, namespace)?;
        manifest.check(engines)?;
        Ok(manifest)
    }

    fn check(&self, engines: &Engines) -> Result<(), Reject> {
        let large = |what: String| Reject::new(Reason::TooLarge, what);
        if self.entries.is_empty() {
            return Err(malformed("it has no entries"));
        }
        if self.entries.len() > MOST_ENTRIES || self.replaces.len() > MOST_REPLACED {
            return Err(large(format!("it has more than {MOST_ENTRIES} entries")));
        }
        if self.host.len() > MOST_TEXT || self.tool.len() > MOST_TEXT {
            return Err(malformed("its host or tool has too long a name"));
        }
        let mut paths = HashSet::with_capacity(self.entries.len());
        let mut content = 0_u64;
        for entry in &self.entries {
            entry.check(engines)?;
            content = content.saturating_add(entry.size);
            if !paths.insert(entry.path.as_str()) {
                return Err(malformed(format!("it has {} twice", entry.path)));
            }
        }
        if content > MOST_CONTENT || self.body.size > MOST_BODY {
            return Err(large(format!("its content is {content} bytes")));
        }
        if content != self.body.content {
            return Err(malformed("its sizes do not add up"));
        }
        let hashes = self.replaces.iter().chain([&self.body.sha256]);
        if hashes.into_iter().any(|hash| parse_sha256(hash).is_none()) {
            return Err(malformed("a hash in it is none"));
        }
        Ok(())
    }

    /// When it was made.
    pub fn created(&self) -> SystemTime {
        let since = Duration::from_secs(self.created);
        UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
    }

    /// The text that is hashed, signed and stored.
    pub fn text(&self) -> Vec<u8> {
        // Strings and numbers only, and a map with text for keys: nothing that JSON lacks.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl PackEntry {
    fn check(&self, engines: &Engines) -> Result<(), Reject> {
        if self.size > MOST_ENTRY {
            let text = format!("{} is {} bytes", self.path, self.size);
            return Err(Reject::new(Reason::TooLarge, text));
        }
        check_path(&self.path, &self.engine, engines)?;
        if parse_sha256(&self.sha256).is_none() {
            return Err(malformed("a hash in it is none"));
        }
        if self.version.len() > MOST_TEXT || self.key.len() > MOST_PATH {
            return Err(malformed("a version or a key in it is too long"));
        }
        Ok(())
    }

    /// The content's SHA-256.
    pub fn digest(&self) -> [u8; 32] {
        parse_sha256(&self.sha256).unwrap_or_default()
    }
}

/// Whether a path stays within a cache and is the name of an entry of its engine.
fn check_path(path: &str, engine: &str, engines: &Engines) -> Result<(), Reject> {
    let bad = |what: &str| {
        let shown: String = path.chars().take(200).collect();
        let text = format!("the path '{}' {what}", shown.escape_debug());
        Reject::new(Reason::BadPath, text)
    };
    if path.len() > MOST_PATH || path.split('/').any(|name| name.len() > MOST_NAME) {
        return Err(bad("is too long"));
    }
    if path.chars().any(char::is_control) {
        return Err(bad("has control characters"));
    }
    let names = Path::new(path).components();
    let normal: Vec<_> = names
        .map_while(|name| match name {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    if normal.join("/") != path || normal.is_empty() {
        return Err(bad("is not relative and normal"));
    }
    if normal.contains(&PRIVATE_DIR) {
        return Err(bad("leads into kidafs's own folder"));
    }
    match engines.by_name(Path::new(path)) {
        NameKind::Entry { engine: found, .. } if found.as_str() == engine => Ok(()),
        NameKind::Entry { engine: found, .. } => {
            Err(bad(&format!("is one of {found}, not of what it says")))
        }
        NameKind::Temporary(_) | NameKind::Foreign => Err(bad("is no engine's")),
    }
}

/// The engine's own key and the version tag of an entry, from its path and its first bytes.
pub fn key_and_version(
    engines: &Engines,
    engine: Engine,
    path: &str,
    head: &[u8],
) -> (String, String) {
    use crate::format::{importlib, jinja2};
    let name = path.rsplit('/').next().unwrap_or(path);
    let python = |(major, minor): (u32, u32)| format!("py{major}{minor}");
    match engine {
        Engine::Kida => match engines.kida.parse_name(name.as_ref()) {
            Some(parsed) => {
                let context = parsed.context_hash.map(|hash| format!("_{hash}"));
                let key = format!("{}{}", parsed.source_hash, context.unwrap_or_default());
                (key, parsed.version.to_owned())
            }
            None => (String::new(), String::new()),
        },
        Engine::Jinja2 => {
            let key = jinja2::key_of(name.as_bytes()).unwrap_or_default();
            let version = jinja2::header(head).and_then(|header| header.python);
            (key.to_owned(), version.map(python).unwrap_or_default())
        }
        // A module's source serves any interpreter.
        Engine::Mako => (path.trim_end_matches(".py").to_owned(), String::new()),
        Engine::Importlib => match importlib::parse_name(name.as_bytes()) {
            Some(parsed) => {
                let tag = String::from_utf8_lossy(parsed.tag);
                let version = tag
                    .strip_prefix("cpython-")
                    .map_or_else(|| tag.to_string(), |digits| format!("py{digits}"));
                let module = String::from_utf8_lossy(parsed.module).into_owned();
                (module, version)
            }
            None => (String::new(), String::new()),
        },
    }
}

#[cfg(test)]
mod tests;
