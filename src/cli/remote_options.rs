//! Which remote, and how: what `push`, `pull`, `sync` and `remote` have in common.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use super::options;
use super::target::Target;
use crate::config::RemoteConfig;
use crate::format::{Engines, Pattern, VersionTag};
use crate::remote::catalogue::Catalogue;
use crate::remote::envelope::Signer;
use crate::remote::keys::{SigningKey, Trust, TrustedKey};
use crate::remote::manifest::Namespace;
use crate::remote::pull::Versions;
use crate::remote::store::{Options, Remote, has_password};

/// The variable that holds the password of a secret key that has one.
const KEY_PASSWORD: &str = "KIDAFS_KEY_PASSWORD";

const HEADING: &str =
    "Remote options (also as KIDAFS_REMOTE_… variables and as remote-… in kidafs.toml)";

/// The options that name a remote and say how to reach it.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = HEADING)]
pub(super) struct RemoteOptions {
    /// Where packs are kept: s3://BUCKET/PATH, gs://…, az://…, https://HOST/PATH, file:///PATH, redis://HOST, rediss://HOST
    #[arg(long, value_name = "URL")]
    remote: Option<String>,

    /// The cache's name there: one for each application and configuration of its environment
    #[arg(long, value_name = "N")]
    namespace: Option<String>,

    /// A key whose packs are taken: a file, or a public key's base64 line, perhaps as NAME=KEY; once for each key
    #[arg(long, value_name = "KEY")]
    trust: Vec<String>,

    /// Take unsigned packs, and make them where there is no key: whoever can write to the remote can then run code here
    #[arg(long)]
    unsigned: bool,

    /// The service's address, where it is not the provider's own
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,

    /// The region of an S3 bucket
    #[arg(long, value_name = "R")]
    region: Option<String>,

    /// The bucket's name in the path, not in the host's name [default: with --endpoint]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    path_style: Option<bool>,

    /// Certificates, as PEM, that are trusted beside the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// The longest that one request may take [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,

    /// The longest that a connection may take to be made [default: 3s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    connect_timeout: Option<Duration>,

    /// A further option of the store, as its library calls it, such as aws_skip_signature=true
    #[arg(long, value_name = "KEY=VALUE")]
    remote_option: Vec<String>,
}

/// What is said on the command line about signing.
#[derive(Args, Clone, Default)]
pub(super) struct SignOptions {
    /// The secret key that signs
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    pub(super) sign_key: Option<PathBuf>,

    /// How long the remote keeps what is pushed; Redis only
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = HEADING)]
    pub(super) expire: Option<Duration>,
}

impl RemoteOptions {
    /// These options on top of what variables and files say.
    ///
    /// # Errors
    /// When those cannot be read.
    pub(super) fn resolve(self) -> anyhow::Result<RemoteConfig> {
        let base = options::remote()?;
        let or =
            |given: Vec<String>, base: Vec<String>| if given.is_empty() { base } else { given };
        Ok(RemoteConfig {
            url: self.remote.or(base.url),
            namespace: self.namespace.or(base.namespace),
            trust: or(self.trust, base.trust),
            unsigned: self.unsigned || base.unsigned,
            endpoint: self.endpoint.or(base.endpoint),
            region: self.region.or(base.region),
            path_style: self.path_style.or(base.path_style),
            ca_file: self.ca_file.or(base.ca_file),
            timeout: self.timeout.unwrap_or(base.timeout),
            connect_timeout: self.connect_timeout.unwrap_or(base.connect_timeout),
            further: or(self.remote_option, base.further),
            ..base
        })
    }
}

impl SignOptions {
    /// These options on top of a configuration.
    pub(super) fn onto(self, config: RemoteConfig) -> RemoteConfig {
        RemoteConfig {
            sign_key: self.sign_key.or(config.sign_key),
            expire: self.expire.or(config.expire),
            ..config
        }
    }
}

/// A remote that was named and whose options are sound.
pub(super) struct Reached {
    pub(super) remote: Remote,
    namespace: Namespace,
}

/// The namespace of a configuration.
fn namespace(config: &RemoteConfig) -> anyhow::Result<Namespace> {
    let Some(namespace) = &config.namespace else {
        bail!(
            "no namespace is given: say --namespace NAME, one for each application and configuration of its environment"
        );
    };
    Ok(namespace.parse()?)
}

impl Reached {
    /// Opens the store; nothing is connected yet. `retries`: how often what may pass is tried again at once.
    ///
    /// # Errors
    /// When there is none, or it cannot be.
    pub(super) fn open(config: RemoteConfig, retries: usize) -> anyhow::Result<Self> {
        let Some(url) = &config.url else {
            bail!("no remote is given: say --remote URL, such as s3://BUCKET/PATH or file:///PATH");
        };
        if has_password(url) {
            log::warn!(
                "whoever may list processes can read the password in the remote's URL: put it into the variable REDISCLI_AUTH instead"
            );
        }
        let namespace = namespace(&config)?;
        let further: Result<Vec<_>, _> = config
            .further
            .iter()
            .map(|pair| {
                let split = pair.split_once('=');
                let split = split.map(|(key, value)| (key.to_owned(), value.to_owned()));
                split.with_context(|| format!("'{pair}' is no option: write KEY=VALUE"))
            })
            .collect();
        let options = Options {
            timeout: config.timeout,
            connect_timeout: config.connect_timeout,
            retries,
            endpoint: config.endpoint.clone(),
            region: config.region.clone(),
            path_style: config.path_style,
            ca_file: config.ca_file.clone(),
            expire: config.expire,
            further: further?,
        };
        let remote = Remote::open(url, &namespace, &options)?;
        Ok(Self { remote, namespace })
    }

    /// What is known of the namespace: nothing yet.
    pub(super) fn catalogue(&self, trust: Trust, engines: Engines) -> Catalogue<'_> {
        Catalogue::new(&self.remote, self.namespace.clone(), trust, engines)
    }
}

/// The keys that are trusted.
///
/// # Errors
/// When one of them is none.
pub(super) fn trust(config: &RemoteConfig) -> anyhow::Result<Trust> {
    let keys: Result<Vec<_>, _> = config
        .trust
        .iter()
        .map(|key| TrustedKey::read(key))
        .collect();
    Ok(Trust {
        keys: keys?,
        unsigned: config.unsigned,
        anybody: false,
    })
}

/// The same for whoever takes something, who must trust somebody.
///
/// # Errors
/// When nobody is trusted.
pub(super) fn trust_of_taker(config: &RemoteConfig) -> anyhow::Result<Trust> {
    let trust = trust(config)?;
    if trust.keys.is_empty() && !trust.unsigned {
        bail!(
            "no key is trusted: say --trust KEY with the public key of whoever pushes, or --unsigned to run what anybody put there"
        );
    }
    Ok(trust)
}

/// The key that signs; `None` if unsigned packs were asked for.
///
/// # Errors
/// When there is none, or it cannot be used.
pub(super) fn signing_key(config: &RemoteConfig) -> anyhow::Result<Option<SigningKey>> {
    match &config.sign_key {
        Some(path) => Ok(Some(SigningKey::read(path, || {
            std::env::var(KEY_PASSWORD).ok()
        })?)),
        None if config.unsigned => Ok(None),
        None => bail!(
            "no key to sign with is given: say --sign-key FILE (`kidafs key generate FILE` makes one), or --unsigned"
        ),
    }
}

/// The keys that whoever signs with `key` trusts: itself, beside those that are given.
///
/// # Errors
/// When a key is none.
pub(super) fn trust_of_signer(
    config: &RemoteConfig,
    key: Option<&SigningKey>,
) -> anyhow::Result<Trust> {
    let mut trust = trust(config)?;
    if let Some(key) = key {
        trust.keys.push(key.public("own")?);
    }
    Ok(trust)
}

/// The version tags that are wanted: the given ones, or else the configured ones.
///
/// # Errors
/// When a configured one is none.
pub(super) fn versions(given: Vec<VersionTag>, config: &RemoteConfig) -> anyhow::Result<Versions> {
    if !given.is_empty() {
        return Ok(Versions { given });
    }
    let tags: Result<_, _> = config.version_tags.iter().map(|tag| tag.parse()).collect();
    Ok(Versions { given: tags? })
}

/// How a directory's entries are named: as given, or as its daemon, variables and files say.
///
/// # Errors
/// When those cannot be read.
pub(super) fn engines(target: &Target, pattern: Option<Pattern>) -> anyhow::Result<Engines> {
    Ok(Engines::new(target.pattern(pattern)?))
}

/// Who signed something, for people.
pub(super) fn signer(signer: &Signer) -> String {
    match signer {
        Signer::Nobody => "nobody".to_owned(),
        Signer::Trusted(name) => name.clone(),
        Signer::Stranger(number) => format!("{number} (not checked)"),
    }
}
