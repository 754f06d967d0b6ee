//! The arguments that name an entry: `kidafs path`, `get` and `set` share them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;

use super::hash;
use super::options::{self, MountOptions};
use super::target::Target;
use crate::format::{Pattern, VersionTag};
use crate::kida::BytecodeCache;

/// Names one entry, as the engine does.
#[derive(Args)]
pub(super) struct EntryArgs {
    /// The cache: a mount point or a plain directory
    #[arg(value_name = "DIR")]
    pub(super) dir: PathBuf,

    /// The template's name, as the engine knows it
    #[arg(value_name = "NAME")]
    pub(super) name: String,

    #[command(flatten)]
    source: Source,

    /// Hash of the static context the template is compiled with
    #[arg(long, value_name = "HASH")]
    pub(super) context_hash: Option<String>,

    #[command(flatten)]
    format: NameFormat,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The template's source, to be hashed; - for standard input
    #[arg(long, value_name = "FILE")]
    source: Option<PathBuf>,

    /// The hash of the template's source
    #[arg(long, value_name = "HASH")]
    source_hash: Option<String>,
}

/// How entries are named.
#[derive(Args)]
pub(super) struct NameFormat {
    /// The interpreter's tag, or the engine's longer one (py314_kida0_12_0_ast2) [default: py314]
    #[arg(long, value_name = "TAG")]
    version_tag: Option<VersionTag>,

    /// Entry names [default: the mount's, or KIDAFS_PATTERN]
    #[arg(long, value_name = "P")]
    pattern: Option<Pattern>,
}

impl EntryArgs {
    /// The hash that names the source.
    pub(super) fn source_hash(&self) -> anyhow::Result<String> {
        match (&self.source.source, &self.source.source_hash) {
            (Some(file), _) => hash::hash_of(file),
            (None, Some(hash)) => Ok(hash.clone()),
            // The group above asks for one of the two.
            (None, None) => bail!("give the source with --source or --source-hash"),
        }
    }

    /// The cache that is there.
    pub(super) fn cache(&self) -> anyhow::Result<BytecodeCache> {
        let target = Target::open(&self.dir)?;
        let pattern = target.pattern(self.format.pattern.clone())?;
        Ok(self
            .format
            .version(BytecodeCache::existing(&self.dir, pattern)))
    }

    /// The cache, whose directory is created if it is missing.
    pub(super) fn cache_or_create(&self) -> anyhow::Result<BytecodeCache> {
        if self.dir.symlink_metadata().is_ok() {
            return self.cache();
        }
        let pattern = match self.format.pattern.clone() {
            Some(pattern) => pattern,
            None => options::resolve(&MountOptions::default())?.config.pattern,
        };
        let cache = BytecodeCache::new(&self.dir, pattern)
            .with_context(|| format!("cannot create {}", self.dir.display()))?;
        Ok(self.format.version(cache))
    }

    /// A sentence for who relied on the default tag in a cache whose entries all have others.
    pub(super) fn hint(&self, cache: &BytecodeCache) -> Option<String> {
        if self.format.version_tag.is_some() {
            return None;
        }
        // Names alone: looking at the files would count as their use.
        let names = fs::read_dir(&self.dir).ok()?.flatten();
        let tags: BTreeSet<String> = names
            .filter_map(|file| {
                let name = file.file_name();
                let parts = cache.pattern().parse_name(&name)?;
                Some(parts.version.to_owned())
            })
            .collect();
        let own = cache.version().as_str();
        if tags.is_empty() || tags.contains(own) {
            return None;
        }
        let others: Vec<_> = tags.iter().take(MOST_TAGS).map(String::as_str).collect();
        Some(format!(
            "no entry in {} has the default version tag {own}; give --version-tag one of those that are there: {}",
            self.dir.display(),
            others.join(", ")
        ))
    }

    /// Says [`hint`](Self::hint) on standard error, if there is reason to.
    pub(super) fn warn(&self, cache: &BytecodeCache) {
        if let Some(hint) = self.hint(cache) {
            log::warn!("{hint}");
        }
    }
}

/// How many version tags a hint names.
const MOST_TAGS: usize = 5;

impl NameFormat {
    fn version(&self, cache: BytecodeCache) -> BytecodeCache {
        cache.with_version(self.version_tag.clone().unwrap_or_default())
    }
}
