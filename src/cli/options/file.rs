//! Configuration files.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::key::Key;
use super::{Environment, Given, OptionError};
use crate::config::Origin;

const SYSTEM: &str = "/etc/kidafs.toml";
const NAME: &str = "kidafs.toml";

/// A configuration file that may be there.
#[derive(Debug, PartialEq)]
pub(super) struct Candidate {
    path: PathBuf,
    /// Somebody named it: its absence is an error.
    named: bool,
}

/// The files to read, the weakest first.
pub(super) fn paths(environment: Environment<'_>) -> Vec<Candidate> {
    if let Some(path) = environment("KIDAFS_CONFIG") {
        return vec![Candidate {
            path: path.into(),
            named: true,
        }];
    }
    // The XDG base directory specification: a relative path is to be ignored.
    let absolute = |name| {
        environment(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let user = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    std::iter::once(PathBuf::from(SYSTEM))
        .chain(user.map(|folder| folder.join(NAME)))
        .map(|path| Candidate { path, named: false })
        .collect()
}

/// The values in a file; none when a file that nobody named is absent.
pub(super) fn read(file: &Candidate) -> Result<Vec<Given>, OptionError> {
    let path = file.path.display().to_string();
    let refuse = |problem: String| OptionError::File {
        path: path.clone(),
        problem,
    };
    let text = match load(&file.path) {
        Ok(text) => text,
        Err(Unreadable::Io(error)) if !file.named && is_absent(error.kind()) => {
            return Ok(Vec::new());
        }
        Err(Unreadable::Io(error)) if file.named => {
            return Err(refuse(format!(
                "cannot be read ({error}); correct or unset KIDAFS_CONFIG"
            )));
        }
        Err(Unreadable::Io(error)) => {
            return Err(refuse(format!(
                "cannot be read ({error}); correct its mode, or set KIDAFS_CONFIG to another file"
            )));
        }
        Err(Unreadable::Unsafe(problem)) => return Err(refuse(problem)),
    };
    parse(&text, &path)
}

fn is_absent(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory)
}

enum Unreadable {
    Io(std::io::Error),
    Unsafe(String),
}

impl From<std::io::Error> for Unreadable {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

fn load(path: &Path) -> Result<String, Unreadable> {
    let mut file = File::open(path)?;
    let status = file.metadata()?;
    let owner = status.uid();
    let own = owner == 0 || owner == rustix::process::geteuid().as_raw();
    // Devices and pipes, such as /dev/null or <(…), are nobody's cache settings.
    if status.is_file() && !own {
        return Err(Unreadable::Unsafe(format!(
            "belongs to the user {owner}, who could point the mount at code of his own; change its owner, or set KIDAFS_CONFIG to another file"
        )));
    }
    if status.is_file() && status.mode() & 0o002 != 0 {
        return Err(Unreadable::Unsafe(
            "may be written by everybody, who could point the mount at code of his own; run chmod o-w on it"
                .to_owned(),
        ));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// The values in the text of a file.
pub(super) fn parse(text: &str, path: &str) -> Result<Vec<Given>, OptionError> {
    let origin = |offset: usize| Origin::File {
        path: path.to_owned(),
        line: text
            .get(..offset)
            .map_or(1, |before| before.matches('\n').count() + 1),
    };
    let table = DeTable::parse(text).map_err(|error| {
        let at = origin(error.span().map_or(0, |span| span.start));
        OptionError::Conflict(format!("{at} is not TOML: {}", one_line(error.message())))
    })?;
    let mut all: Vec<Given> = Vec::new();
    for (name, value) in table.get_ref() {
        let Some(key) = Key::find(name.get_ref()) else {
            return Err(OptionError::unknown(
                name.get_ref(),
                origin(name.span().start),
            ));
        };
        let origin = origin(value.span().start);
        let value = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(on) => on.to_string(),
            DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                return Err(OptionError::Conflict(format!(
                    "{origin} gives {} more than one value; write it as {} = \"…\"",
                    key.name, key.name
                )));
            }
        };
        if all.iter().any(|given| given.name == key.name) {
            return Err(OptionError::Conflict(format!(
                "{origin} sets {} a second time, spelt differently; remove one of the two lines",
                key.name
            )));
        }
        all.push(Given {
            name: key.name,
            value: OsString::from(value),
            origin,
        });
    }
    Ok(all)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
