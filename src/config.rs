//! What can be set, with the defaults. Parsing is the command line's business ([`crate::cli`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::format::Pattern;

/// How far a commit has got when `rename` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// It is in memory, and is written to the backing directory within a stated delay.
    Async,
    /// It is in the backing directory: the daemon's death loses nothing, a power cut may.
    #[default]
    Crash,
    /// It is on the medium, file and directory flushed: a power cut loses nothing.
    Power,
}

/// Space to leave free on the backing filesystem.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum KeepFree {
    /// The smaller of 5 % and 1 GiB.
    Auto,
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the filesystem's size; 0.0 to 100.0.
    Percent(f64),
}

impl KeepFree {
    /// The bytes to leave free on a filesystem of `total` bytes.
    pub fn bytes_of(self, total: u64) -> u64 {
        match self {
            Self::Auto => Self::Percent(5.0).bytes_of(total).min(1024 * MIB),
            Self::Bytes(bytes) => bytes,
            // A byte of rounding on exabytes does not matter to a rule of thumb.
            Self::Percent(percent) => (total as f64 * percent / 100.0) as u64,
        }
    }

    /// The inodes to leave free on a filesystem of `total`: the same share, at the most one for each 16 KiB of 1 GiB.
    /// None where bytes are asked for, or where the filesystem has no such limit (`total` 0).
    pub fn inodes_of(self, total: u64) -> u64 {
        match self {
            Self::Auto => Self::Percent(5.0).bytes_of(total).min(65_536),
            Self::Bytes(_) => 0,
            Self::Percent(_) => self.bytes_of(total),
        }
    }
}

/// Whether a CPU-latency request may be held in bursts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Latency {
    /// Yes, where the daemon has the right to.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// The options of a mount. Sizes are in bytes; a rule whose age is `None` is off.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where entries are kept; `None`: in the directory that is mounted over.
    pub backing: Option<PathBuf>,
    /// Content kept in the memory tier.
    pub memory: u64,
    /// Uncommitted content; beyond it a write fails with ENOSPC.
    pub staging: u64,
    /// Bytes of committed content.
    pub max_size: u64,
    /// Number of committed entries.
    pub max_entries: u64,
    /// Size of one file; beyond it a write fails with EFBIG.
    pub max_entry: u64,
    /// `expired`: neither committed nor looked up for this long.
    pub max_age: Option<Duration>,
    /// `superseded`: the source is another entry's now, and not looked up for this long since.
    pub superseded_grace: Option<Duration>,
    /// `orphaned`: the source is gone, and not looked up for this long since.
    pub orphaned_grace: Option<Duration>,
    /// Whether the files that entries were made of are looked at.
    pub sources: bool,
    /// `foreign-version`: its ABI version had no look-up for this long while another had.
    pub foreign_age: Option<Duration>,
    /// `stale-temp`: staged, never committed, untouched for this long.
    pub stale_temp: Option<Duration>,
    /// Free space left on the backing filesystem.
    pub keep_free: KeepFree,
    /// The evictor's schedule.
    pub sweep_interval: Duration,
    /// How long the kernel keeps a name before it looks it up again; by that the use of a hot entry is noticed.
    pub entry_timeout: Duration,
    /// What a returned rename promises.
    pub durability: Durability,
    /// Entry names.
    pub pattern: Pattern,
    /// Serve without writes.
    pub read_only: bool,
    /// Serve a directory that is no cache: one with other files and no entry, a home, a work tree.
    pub adopt: bool,
    /// Let other users in.
    pub allow_other: bool,
    /// Serve what members of the directory's group could have written.
    pub trust_group: bool,
    /// Serve nothing without a right seal by a key of this file.
    pub seal_key: Option<PathBuf>,
    /// Serve extended attributes.
    pub xattrs: bool,
    /// Load every entry at mount.
    pub warm: bool,
    /// How many threads read requests from the kernel at a time; one more stands by (`wakeup::Readers`).
    pub threads: usize,
    /// How long the reader polls after the last request of a burst, while no CPU-latency request is held; zero: it
    /// does not.
    pub poll: Duration,
    /// The CPU-latency request.
    pub latency: Latency,
    /// Restart a daemon that died.
    pub supervise: bool,
    /// Give up the rights that a daemon does not use.
    pub confine: bool,
    /// Where a daemon in the background logs to; `None`: the journal or syslog.
    pub log_file: Option<PathBuf>,
    /// Where the cache is carried to and from.
    pub remote: RemoteConfig,
}

/// A remote that a cache is carried to and from, and how: the options of `push`, `pull` and `sync`, and of a mount
/// that has a `sync` beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteConfig {
    /// Where packs are kept; `None`: nothing is carried.
    pub url: Option<String>,
    /// The cache's name there.
    pub namespace: Option<String>,
    /// The keys whose packs are taken: files or base64 lines, each perhaps with a name and `=` before it.
    pub trust: Vec<String>,
    /// Whether unsigned packs are taken, or made where there is no key.
    pub unsigned: bool,
    /// The secret key that signs what is pushed; `None`: nothing is pushed, unless unsigned.
    pub sign_key: Option<PathBuf>,
    /// The version tags that are taken; none: those in use.
    pub version_tags: Vec<String>,
    /// The service's address, where it is not the provider's own.
    pub endpoint: Option<String>,
    /// The region of an S3 bucket.
    pub region: Option<String>,
    /// The bucket's name in the path, instead of the host's name.
    pub path_style: Option<bool>,
    /// Certificates, as PEM, that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The longest that one request may take.
    pub timeout: Duration,
    /// The longest that a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long the remote keeps what is pushed, where it can be told.
    pub expire: Option<Duration>,
    /// Further options, `KEY=VALUE`, as the store's own library calls them.
    pub further: Vec<String>,
    /// How often `sync` pulls.
    pub interval: Duration,
    /// How long a mount waits for the first pull.
    pub wait: Duration,
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self {
            url: None,
            namespace: None,
            trust: Vec::new(),
            unsigned: false,
            sign_key: None,
            version_tags: Vec::new(),
            endpoint: None,
            region: None,
            path_style: None,
            ca_file: None,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(3),
            expire: None,
            further: Vec::new(),
            interval: Duration::from_secs(60),
            wait: Duration::ZERO,
        }
    }
}

const MIB: u64 = 1 << 20;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Default for Config {
    fn default() -> Self {
        Self {
            backing: None,
            memory: 64 * MIB,
            staging: 64 * MIB,
            max_size: 1024 * MIB,
            max_entries: 100_000,
            max_entry: 16 * MIB,
            max_age: Some(30 * DAY),
            superseded_grace: Some(Duration::from_secs(5 * 60)),
            orphaned_grace: Some(DAY),
            sources: true,
            foreign_age: Some(7 * DAY),
            stale_temp: Some(HOUR),
            keep_free: KeepFree::Auto,
            sweep_interval: Duration::from_secs(60),
            entry_timeout: Duration::from_secs(60),
            durability: Durability::Crash,
            pattern: Pattern::default(),
            read_only: false,
            adopt: false,
            allow_other: false,
            trust_group: false,
            seal_key: None,
            xattrs: false,
            warm: false,
            threads: 1,
            poll: Duration::from_micros(200),
            latency: Latency::Auto,
            supervise: true,
            confine: true,
            log_file: None,
            remote: RemoteConfig::default(),
        }
    }
}

/// Where the value of an option came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A configuration file.
    File {
        /// The file, as it was named.
        path: String,
        /// The line of the value; the first is 1.
        line: usize,
    },
    /// An environment variable, by its name.
    Variable(String),
    /// An option of its own, such as `--memory 64MiB`.
    CommandLine,
    /// A mount option, such as `-o memory=64MiB`.
    MountOption,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::CommandLine => f.write_str("command line"),
            Self::MountOption => f.write_str("mount option -o"),
        }
    }
}

/// One option as it applies, for `.kidafs/config.json` and `kidafs config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The value as it would be written on the command line, exactly; empty: none.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// The options of a mount, checked and complete, and where each came from.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedConfig {
    /// What applies.
    pub config: Config,
    /// The same, by the option's name without its dashes (`max-size`). Every option is there.
    pub settings: BTreeMap<&'static str, Setting>,
}
