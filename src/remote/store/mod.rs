//! What keeps packs: anything that can put, get, list and delete.
//!
//! Every operation ends within a stated time, whatever the other side does, and at once when it is cancelled. What is
//! got is bounded by what the caller says it may be.

mod aws_files;
mod object;
mod options;
mod redis;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::manifest::Namespace;

pub use options::{Options, UrlError, has_password, shown};

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its size in bytes, where the store says.
    pub size: Option<u64>,
    /// When it was put there, by the store's clock, where it says.
    pub modified: Option<SystemTime>,
}

/// The objects of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// They, in no order.
    pub objects: Vec<Listed>,
    /// There are more than were asked for.
    pub truncated: bool,
}

/// A place for a namespace's objects. Names are ASCII letters, digits and `.`.
pub trait Store: Send + Sync {
    /// Puts an object there, unless one of its name is there; whether it was put.
    ///
    /// # Errors
    /// A [`StoreError`].
    fn put_if_absent(&self, name: &str, bytes: Vec<u8>) -> Result<bool, StoreError>;

    /// An object's content, of at most `most` bytes; `None` if it is not there.
    ///
    /// # Errors
    /// A [`StoreError`]; [`Fault::TooLarge`] for a larger one, which is not read to its end.
    fn get(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, StoreError>;

    /// The objects that are there, `most` of them at most.
    ///
    /// # Errors
    /// A [`StoreError`].
    fn list(&self, most: usize) -> Result<Listing, StoreError>;

    /// Removes an object; one that is not there is no error.
    ///
    /// # Errors
    /// A [`StoreError`].
    fn delete(&self, name: &str) -> Result<(), StoreError>;
}

/// What went wrong with a store.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {at}: {fault}{}", advice(.fault))]
pub struct StoreError {
    /// What was tried: `get`, `put`, `list`, `delete`.
    pub operation: &'static str,
    /// Where.
    pub at: String,
    /// What.
    pub fault: Fault,
}

/// The kinds of what can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It took too long.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// This process was told to end.
    #[error("interrupted")]
    Cancelled,
    /// It is larger than it may be.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl StoreError {
    /// Whether the other side did not answer in time.
    pub fn is_timeout(&self) -> bool {
        matches!(self.fault, Fault::TimedOut(_))
    }

    /// Whether this process was told to end.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.fault, Fault::Cancelled)
    }
}

/// What to do about a fault, where it says enough.
fn advice(fault: &Fault) -> &'static str {
    let text = match fault {
        Fault::TimedOut(_) => {
            return "; see whether it can be reached from here, or give it a longer --timeout";
        }
        Fault::Failed(text) => text.to_ascii_lowercase(),
        Fault::Cancelled | Fault::TooLarge(_) => return "",
    };
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["certificate", "unknownissuer"]) {
        "; name the certificate of its authority with --ca-file"
    } else if says(&["connection refused", "dns", "name or service", "lookup"]) {
        "; start it, or correct the URL or --endpoint"
    } else if says(&[
        "403",
        "401",
        "accessdenied",
        "forbidden",
        "noauth",
        "wrongpass",
        "noperm",
    ]) {
        "; give credentials that may do this (docs/FLEET.md lists what each command needs)"
    } else {
        ""
    }
}

/// The error and its causes, each once, in one line of a bearable length.
fn flat(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let said = error.to_string();
        let said = said.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        if text.is_empty() {
            text = said;
        } else if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = error.source();
    }
    if text.chars().count() > 400 {
        text = text.chars().take(400).chain(['…']).collect();
    }
    text
}

/// With which another thread ends a store's operations.
#[derive(Debug, Clone)]
pub struct Canceller(Arc<watch::Sender<bool>>);

impl Canceller {
    /// Ends what is going on, and whatever is begun later.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }
}

enum Backend {
    Object(object::Objects),
    Redis(Box<redis::Redis>),
}

/// A store that a URL names.
pub struct Remote {
    backend: Backend,
    runtime: Option<Runtime>,
    /// The longest that an operation may take.
    timeout: Duration,
    /// What people know it by: the URL without a password.
    name: String,
    cancel: Canceller,
    requests: AtomicU64,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Remote {
    /// The store that `url` names, for one namespace. Nothing is connected yet.
    ///
    /// # Errors
    /// When the URL or an option is of no use.
    pub fn open(url: &str, namespace: &Namespace, options: &Options) -> Result<Self, UrlError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("kidafs-remote")
            .enable_all()
            .build()
            .map_err(|error| UrlError::System(error.to_string()))?;
        // TLS takes the provider of the whole process; one that was installed before is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let parsed = options::parse(url)?;
        let backend = match parsed.scheme() {
            "redis" | "rediss" | "redis+unix" | "unix" => {
                let store = redis::Redis::open(&parsed, namespace, options)?;
                Backend::Redis(Box::new(store))
            }
            _ => Backend::Object(object::Objects::open(&parsed, namespace, options)?),
        };
        Ok(Self {
            backend,
            runtime: Some(runtime),
            timeout: options.timeout,
            name: options::without_secrets(&parsed),
            cancel: Canceller(Arc::new(watch::Sender::new(false))),
            requests: AtomicU64::new(0),
        })
    }

    /// What people know it by: the URL without a password.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many operations were begun.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// With which its operations can be ended.
    pub fn canceller(&self) -> Canceller {
        self.cancel.clone()
    }

    fn run<T>(
        &self,
        operation: &'static str,
        name: &str,
        future: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, StoreError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut cancelled = self.cancel.0.subscribe();
        let bounded = async {
            tokio::select! {
                biased;
                // Its sender lives as long as this store.
                _ = cancelled.wait_for(|cancelled| *cancelled) => Err(Fault::Cancelled),
                done = tokio::time::timeout(self.timeout, future) => {
                    done.unwrap_or(Err(Fault::TimedOut(self.timeout)))
                }
            }
        };
        let done = match &self.runtime {
            Some(runtime) => runtime.block_on(bounded),
            None => Err(Fault::Cancelled),
        };
        done.map_err(|fault| StoreError {
            operation,
            at: if name.is_empty() {
                self.name.clone()
            } else {
                format!("{name} at {}", self.name)
            },
            fault,
        })
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // A look-up of a host's name that hangs must not hold up whoever ends.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Store for Remote {
    fn put_if_absent(&self, name: &str, bytes: Vec<u8>) -> Result<bool, StoreError> {
        self.run("put", name, async {
            match &self.backend {
                Backend::Object(store) => store.put_if_absent(name, bytes).await,
                Backend::Redis(store) => store.put_if_absent(name, bytes).await,
            }
        })
    }

    fn get(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.run("get", name, async {
            match &self.backend {
                Backend::Object(store) => store.get(name, most).await,
                Backend::Redis(store) => store.get(name, most).await,
            }
        })
    }

    fn list(&self, most: usize) -> Result<Listing, StoreError> {
        self.run("list", "", async {
            match &self.backend {
                Backend::Object(store) => store.list(most).await,
                Backend::Redis(store) => store.list(most).await,
            }
        })
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.run("delete", name, async {
            match &self.backend {
                Backend::Object(store) => store.delete(name).await,
                Backend::Redis(store) => store.delete(name).await,
            }
        })
    }
}
