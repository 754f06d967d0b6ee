//! How a store is named and reached.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

/// What is said about a store beside its URL.
#[derive(Debug, Clone)]
pub struct Options {
    /// The longest that one operation may take, its retries included.
    pub timeout: Duration,
    /// The longest that a connection may take to be made.
    pub connect_timeout: Duration,
    /// How often what may pass is tried again.
    pub retries: usize,
    /// The service's address, where it is not the provider's own.
    pub endpoint: Option<String>,
    /// The region of an S3 bucket.
    pub region: Option<String>,
    /// The bucket's name in the path instead of the host's name; S3 only. `None`: in the path if there is an
    /// endpoint.
    pub path_style: Option<bool>,
    /// Certificates, as PEM, that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// How long the store keeps what is pushed, where it can be told (Redis).
    pub expire: Option<Duration>,
    /// Further options by the names that object_store gives them, such as `aws_skip_signature=true`.
    pub further: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(3),
            retries: 3,
            endpoint: None,
            region: None,
            path_style: None,
            ca_file: None,
            expire: None,
            further: Vec::new(),
        }
    }
}

/// Why a URL or an option is of no use.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// It names no store.
    #[error(
        "'{0}' names no remote: write s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH, https://HOST/PATH, file:///PATH, redis://HOST or rediss://HOST"
    )]
    NotAStore(String),
    /// An option does not fit.
    #[error("the remote {url} cannot be used: {problem}")]
    Option {
        /// The URL, without a password.
        url: String,
        /// What does not fit.
        problem: String,
    },
    /// The certificates cannot be read.
    #[error("cannot read the certificates in {path}: {problem}", path = path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The system.
    #[error("cannot begin to talk to a remote: {0}")]
    System(String),
}

/// The schemes there are.
const SCHEMES: [&str; 10] = [
    "s3",
    "gs",
    "az",
    "http",
    "https",
    "file",
    "redis",
    "rediss",
    "redis+unix",
    "unix",
];

/// Reads a URL.
pub(super) fn parse(text: &str) -> Result<Url, UrlError> {
    let no_store = || UrlError::NotAStore(text.to_owned());
    let url = Url::parse(text).map_err(|_| no_store())?;
    let has_place = match url.scheme() {
        "file" | "redis+unix" | "unix" => url.host_str().is_none() && url.path().len() > 1,
        scheme if SCHEMES.contains(&scheme) => url.host_str().is_some(),
        _ => false,
    };
    if has_place { Ok(url) } else { Err(no_store()) }
}

/// The URL as it may be shown: without a password, and without a query, which can hold a token.
pub(super) fn without_secrets(url: &Url) -> String {
    let mut url = url.clone();
    // A URL that cannot have a password has none.
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string()
}

impl UrlError {
    pub(super) fn option(url: &Url, problem: impl std::fmt::Display) -> Self {
        Self::Option {
            url: without_secrets(url),
            problem: problem.to_string(),
        }
    }
}

/// The URL `text` as it may be shown; itself if it is none.
pub fn shown(text: &str) -> String {
    Url::parse(text).map_or_else(|_| text.to_owned(), |url| without_secrets(&url))
}

/// Whether the URL holds a password, which everybody who can list processes could then read.
pub fn has_password(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| url.password().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_is_a_url_of_a_known_kind() {
        for good in [
            "s3://bucket/path",
            "gs://bucket",
            "https://cache.example/dav/",
            "file:///var/packs",
            "redis://localhost:6379/1",
            "redis+unix:///run/redis.sock",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "bucket",
            "/var/packs",
            "ftp://x/y",
            "file://host/x",
            "s3:///x",
            "file:///",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(
            shown("rediss://user:secret@host/1?token=x"),
            "rediss://user@host/1"
        );
        assert!(has_password("redis://:secret@host"));
        assert!(!has_password("redis://host"));
    }
}
