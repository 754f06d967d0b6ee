//! The arguments that name an entry: `kidafs path`, `get` and `set` share them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;

use super::hash;
use super::options::{self, MountOptions};
use super::target::Target;
use crate::format::version::age_of;
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

    /// Hash of the static context that the template is compiled with; of an environment
    /// without Jinja2 warnings and without a static context (after kida 0.12.0): a9a0722dcbf847f3
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
    /// The interpreter's tag, or the engine's longer one (py314_kida0_12_0_ast2) [default: the
    /// newest that DIR uses, or py314 where it has no entry]
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
        Ok(self.with_version(BytecodeCache::existing(&self.dir, pattern)))
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
        Ok(self.with_version(cache))
    }

    /// The cache for the version tag that is given; else for the newest that its entries have.
    fn with_version(&self, cache: BytecodeCache) -> BytecodeCache {
        let given = self.format.version_tag.clone();
        let version = given.or_else(|| newest_version(&cache));
        cache.with_version(version.unwrap_or_default())
    }
}

/// The newest version tag of a cache's entries. By their names alone: looking at the files would count
/// as their use.
fn newest_version(cache: &BytecodeCache) -> Option<VersionTag> {
    let mut newest: Option<VersionTag> = None;
    for file in fs::read_dir(cache.dir()).ok()?.flatten() {
        let name = file.file_name();
        let Some(parts) = cache.pattern().parse_name(&name) else {
            continue;
        };
        let is_newer = newest
            .as_ref()
            .is_none_or(|newest| age_of(parts.version) > age_of(newest.as_str()));
        if is_newer && let Ok(version) = parts.version.parse() {
            newest = Some(version);
        }
    }
    newest
}
