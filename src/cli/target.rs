//! The DIR of a command: a mount point or a plain cache directory.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;

use super::options;
use crate::config::Setting;
use crate::daemon::mountpoint::{self, State};
use crate::format::Pattern;
use crate::layout::{CONFIG_JSON, PRIVATE_DIR};

/// More than any of the hidden files can hold: 100,000 entries of 1 KiB.
const MOST_BYTES: u64 = 1 << 30;

/// A directory that is there and answers.
#[derive(Debug)]
pub(super) struct Target {
    /// As it was given, so that messages use the user's words.
    pub(super) dir: PathBuf,
    /// Its daemon; `None` for a plain directory.
    pub(super) mount: Option<Served>,
}

/// A mount that answers.
#[derive(Debug)]
pub(super) struct Served;

impl Target {
    /// Looks at a directory, never hanging on a dead mount.
    ///
    /// # Errors
    /// When it is missing, no directory, or a mount that does not answer.
    pub(super) fn open(dir: &Path) -> anyhow::Result<Self> {
        let found = mountpoint::inspect(dir)?;
        let mount = match found.state {
            State::Missing => bail!(
                "{} does not exist: name a mount point or a cache directory",
                dir.display()
            ),
            State::Directory => None,
            State::Live { .. } => Some(Served),
            State::Dead(_) => bail!(
                "the daemon of {} has died: run `kidafs umount {}` to get the plain directory back, or `kidafs mount {}` to serve it again",
                dir.display(),
                dir.display(),
                dir.display()
            ),
            State::Silent(_) => bail!(
                "the daemon of {} does not answer: look at its log, or detach it with `kidafs umount --lazy {}`",
                dir.display(),
                dir.display()
            ),
        };
        Ok(Self {
            dir: dir.to_owned(),
            mount,
        })
    }

    /// As [`open`](Self::open), but a directory that is missing is created, as engines do.
    ///
    /// # Errors
    /// As `open`, and when it cannot be created.
    #[cfg(feature = "remote")]
    pub(super) fn create(dir: &Path) -> anyhow::Result<Self> {
        if matches!(mountpoint::inspect(dir)?.state, State::Missing) {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("cannot create {}", dir.display()))?;
        }
        Self::open(dir)
    }

    /// As [`open`](Self::open), for a command that only works on a mount.
    ///
    /// # Errors
    /// As `open`, and for a plain directory.
    pub(super) fn open_mount(dir: &Path) -> anyhow::Result<Self> {
        let target = Self::open(dir)?;
        if target.mount.is_none() {
            bail!(
                "{} is not a kidafs mount: run `kidafs mount {}` first",
                dir.display(),
                dir.display()
            );
        }
        Ok(target)
    }

    /// The path of a file in the mount's hidden folder.
    pub(super) fn hidden_path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(PRIVATE_DIR).join(name)
    }

    /// The text of a file in the mount's hidden folder; `None` on a plain directory or where the
    /// daemon has none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(super) fn hidden(&self, name: &str) -> anyhow::Result<Option<String>> {
        if self.mount.is_none() {
            return Ok(None);
        }
        read_hidden(&self.hidden_path(name))
    }

    /// The hidden file `name`, as JSON.
    ///
    /// # Errors
    /// When it cannot be read, or is from a daemon of another version.
    pub(super) fn hidden_json<T: DeserializeOwned>(&self, name: &str) -> anyhow::Result<Option<T>> {
        let Some(text) = self.hidden(name)? else {
            return Ok(None);
        };
        let value = serde_json::from_str(&text).with_context(|| self.foreign(name))?;
        Ok(Some(value))
    }

    /// The hidden file `name`, as lines of JSON.
    ///
    /// # Errors
    /// When it cannot be read, or is from a daemon of another version.
    pub(super) fn hidden_lines<T: DeserializeOwned>(
        &self,
        name: &str,
    ) -> anyhow::Result<Option<Vec<T>>> {
        let Some(text) = self.hidden(name)? else {
            return Ok(None);
        };
        let lines = text.lines().filter(|line| !line.is_empty());
        let rows: Result<Vec<T>, _> = lines.map(serde_json::from_str).collect();
        Ok(Some(rows.with_context(|| self.foreign(name))?))
    }

    fn foreign(&self, name: &str) -> String {
        format!(
            "cannot understand {}, so mount again with this version",
            self.hidden_path(name).display()
        )
    }

    /// The options of the mount's daemon, by name; `None` on a plain directory.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn settings(
        &self,
    ) -> anyhow::Result<Option<std::collections::BTreeMap<String, Setting>>> {
        self.hidden_json(CONFIG_JSON)
    }

    /// The entry name pattern: the given one, the daemon's, or the one that variables and files
    /// set.
    ///
    /// # Errors
    /// When those cannot be read.
    pub(super) fn pattern(&self, given: Option<Pattern>) -> anyhow::Result<Pattern> {
        if let Some(pattern) = given {
            return Ok(pattern);
        }
        if let Some(setting) = self.settings()?.and_then(|mut all| all.remove("pattern")) {
            return Ok(setting.value.parse()?);
        }
        Ok(options::resolve(&options::MountOptions::default())?
            .config
            .pattern)
    }
}

fn read_hidden(path: &Path) -> anyhow::Result<Option<String>> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => bail!(
            "{} may not be read by this user: run the command as the mount's user, or mount with --allow-other",
            path.display()
        ),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
