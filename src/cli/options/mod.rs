//! The options of a mount, from five layers: the command line, `-o`, variables, files, defaults.
//!
//! The first layer that sets an option wins:
//!
//! 1. `--max-size 2GiB` on the command line;
//! 2. `-o max-size=2GiB`, which is how `/etc/fstab` gives options;
//! 3. the variable `KIDAFS_MAX_SIZE`; one that is empty counts as unset;
//! 4. the file that `KIDAFS_CONFIG` names, or, without it, `$XDG_CONFIG_HOME/kidafs.toml`
//!    (`~/.config/kidafs.toml`) and then `/etc/kidafs.toml`;
//! 5. the default.
//!
//! A `kidafs.toml` in the current directory is never read: whoever can write there could point
//! `backing` at code of his own. For the same reason a file is refused that somebody else owns or
//! that everybody may write. Each value is checked even if another layer overrides it.

mod args;
mod check;
mod file;
mod fstab;
mod key;
mod value;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

pub(crate) use args::MountOptions;
use key::{KEYS, Key};

use crate::config::{Config, Origin, ResolvedConfig, Setting};

/// What is wrong with the options. Each is one sentence that names the option, its value and its
/// source.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OptionError {
    /// A value that cannot be read.
    #[error("{name} {value:?} (from {origin}) {problem}")]
    Value {
        /// The option.
        name: &'static str,
        /// What was written.
        value: String,
        /// Where.
        origin: Origin,
        /// The rest of the sentence.
        problem: String,
    },
    /// A name that is not an option.
    #[error("{name:?} (from {origin}) is not an option; {}", hint(nearest))]
    Unknown {
        /// What was written.
        name: String,
        /// Where.
        origin: Origin,
        /// The option that is spelt most like it.
        nearest: Option<&'static str>,
    },
    /// A configuration file that cannot be used.
    #[error("the configuration file {path} {problem}")]
    File {
        /// The file.
        path: String,
        /// The rest of the sentence.
        problem: String,
    },
    /// Two options that cannot both hold, or one that cannot hold at all.
    #[error("{0}")]
    Conflict(String),
    /// The origins that a parent process gave its daemon cannot be read.
    #[error("--resolved is for kidafs itself; leave it out")]
    Resolved,
}

fn hint(nearest: &Option<&'static str>) -> String {
    match nearest {
        Some(name) => format!("did you mean {name}?"),
        None => "`kidafs mount --help` lists the options".to_owned(),
    }
}

impl OptionError {
    fn unknown(name: &str, origin: Origin) -> Self {
        Self::Unknown {
            name: name.to_owned(),
            origin,
            nearest: nearest(name),
        }
    }
}

/// The option that is spelt most like `name`, if one is close.
fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    KEYS.iter()
        .map(|key| (strsim::damerau_levenshtein(&name, key.name), key.name))
        .filter(|(distance, key)| *distance * 3 <= key.len().max(3))
        .min()
        .map(|(_, key)| key)
}

/// A value that some layer gives.
#[derive(Debug, Clone, PartialEq)]
struct Given {
    name: &'static str,
    value: OsString,
    origin: Origin,
}

/// The environment, as a function of the name: tests have their own.
type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The options that apply, from all layers.
///
/// # Errors
///
/// An [`OptionError`], before anything else has happened.
pub(crate) fn resolve(options: &MountOptions) -> Result<ResolvedConfig, OptionError> {
    resolve_in(options, &|name| {
        std::env::var_os(name).filter(|value| !value.is_empty())
    })
}

/// What variables and files say of a remote.
///
/// # Errors
///
/// An [`OptionError`].
#[cfg(feature = "remote")]
pub(crate) fn remote() -> Result<crate::config::RemoteConfig, OptionError> {
    Ok(resolve(&MountOptions::default())?.config.remote)
}

/// Reads a text as mount(8)'s options and as a configuration file, as far as a mount would. For those who try
/// every text; nobody's variables and files count.
pub(crate) fn try_text(text: &[u8]) {
    if let Ok(layers) = fstab::parse(OsStr::from_bytes(text)) {
        let _ = combine(layers, None);
    }
    if let Ok(text) = std::str::from_utf8(text)
        && let Ok(layers) = file::parse(text, "a file")
    {
        let _ = combine(layers, None);
    }
}

fn resolve_in(
    options: &MountOptions,
    environment: Environment<'_>,
) -> Result<ResolvedConfig, OptionError> {
    let mut layers = Vec::new();
    if options.resolved.is_none() {
        for file in file::paths(environment) {
            layers.extend(file::read(&file)?);
        }
        layers.extend(variables(environment));
    }
    for text in &options.mount_options {
        layers.extend(fstab::parse(text)?);
    }
    layers.extend(options.given.iter().cloned());
    combine(layers, options.resolved.as_deref())
}

/// The values that variables give.
fn variables(environment: Environment<'_>) -> impl Iterator<Item = Given> {
    KEYS.iter().filter_map(move |key| {
        let variable = key.variable();
        environment(&variable).map(|value| Given {
            name: key.name,
            value,
            origin: Origin::Variable(variable),
        })
    })
}

/// Puts the layers, the weakest first, on top of the defaults.
fn combine(layers: Vec<Given>, resolved: Option<&str>) -> Result<ResolvedConfig, OptionError> {
    let mut config = Config::default();
    let mut origins: BTreeMap<&'static str, Origin> = BTreeMap::new();
    for given in layers {
        let Some(key) = Key::find(given.name) else {
            return Err(OptionError::unknown(given.name, given.origin));
        };
        apply(&mut config, key, &given)?;
        origins.insert(key.name, given.origin);
    }
    if let Some(json) = resolved {
        let mut told: BTreeMap<String, Origin> =
            serde_json::from_str(json).map_err(|_| OptionError::Resolved)?;
        origins = KEYS
            .iter()
            .filter_map(|key| Some((key.name, told.remove(key.name)?)))
            .collect();
    }
    check::settle(&mut config, &origins);
    check::check(&config, &origins)?;
    let settings = KEYS
        .iter()
        .map(|key| {
            let value = (key.show)(&config).unwrap_or_default();
            let setting = Setting {
                value: value.to_string_lossy().into_owned(),
                origin: origins.remove(key.name).unwrap_or(Origin::Default),
            };
            (key.name, setting)
        })
        .collect();
    Ok(ResolvedConfig { config, settings })
}

fn apply(config: &mut Config, key: &'static Key, given: &Given) -> Result<(), OptionError> {
    let refuse = |problem: String| OptionError::Value {
        name: key.name,
        value: given.value.to_string_lossy().into_owned(),
        origin: given.origin.clone(),
        problem,
    };
    if key.is_path() {
        let path = absolute(&given.value, &given.origin).map_err(refuse)?;
        return (key.set)(config, path.as_os_str()).map_err(refuse);
    }
    (key.set)(config, &given.value).map_err(refuse)
}

/// The path from the root: the daemon leaves the directory it was started in.
fn absolute(value: &OsStr, origin: &Origin) -> Result<PathBuf, String> {
    let path = PathBuf::from(value);
    if path.as_os_str().is_empty() {
        return Err("is no path; name a directory".to_owned());
    }
    if path.is_relative() && matches!(origin, Origin::File { .. }) {
        return Err(
            "is relative, and a file has no directory of its own; write it from /".to_owned(),
        );
    }
    std::path::absolute(&path)
        .map_err(|error| format!("cannot be made absolute ({error}); write it from /"))
}

/// The options as arguments that give exactly this configuration and its origins again, whatever
/// the variables and files say: for the daemon in the background, which is the same program started
/// once more.
pub(crate) fn arguments(resolved: &ResolvedConfig) -> Vec<OsString> {
    let mut arguments = Vec::new();
    for key in &KEYS {
        if let Some(value) = (key.show)(&resolved.config) {
            let mut argument = OsString::from(format!("--{}=", key.name));
            argument.push(value);
            arguments.push(argument);
        }
    }
    let origins: BTreeMap<&str, &Origin> = resolved
        .settings
        .iter()
        .filter(|(_, setting)| setting.origin != Origin::Default)
        .map(|(name, setting)| (*name, &setting.origin))
        .collect();
    let json = serde_json::json!(origins);
    arguments.push(format!("--resolved={json}").into());
    arguments
}

#[cfg(test)]
mod tests;
