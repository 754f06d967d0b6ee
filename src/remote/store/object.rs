//! Object stores, WebDAV and folders, by the crate `object_store`.

use std::env;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use futures_util::StreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    BackoffConfig, Certificate, ClientConfigKey, ClientOptions, Error, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutOptions, RetryConfig,
};
use url::Url;

use super::options::{Options, UrlError};
use super::{Fault, Listed, Listing, aws_files, flat};
use crate::remote::manifest::Namespace;

/// Where the objects of this format lie in a namespace.
const FOLDER: &str = "v1";

/// The list of a namespace's manifests, for a server that cannot list.
const INDEX: &str = "index";

/// More than an index ever holds, in bytes.
const MOST_INDEX: u64 = 8 << 20;

/// The objects of a namespace in an object store.
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// A web server, which may not be able to list.
    is_http: bool,
    /// It has said that it is not.
    unlisted: AtomicBool,
    /// Held while the index is changed: this process at least does not lose its own changes.
    indexing: tokio::sync::Mutex<()>,
}

impl Objects {
    pub(super) fn open(
        url: &Url,
        namespace: &Namespace,
        options: &Options,
    ) -> Result<Self, UrlError> {
        let (store, path) = build(url, options)?;
        let prefix = Path::from_url_path(path).map_err(|error| UrlError::option(url, error))?;
        Ok(Self {
            store,
            prefix: prefix.join(namespace.as_str()).join(FOLDER),
            is_http: matches!(url.scheme(), "http" | "https"),
            unlisted: AtomicBool::new(false),
            indexing: tokio::sync::Mutex::new(()),
        })
    }

    fn path(&self, name: &str) -> Path {
        self.prefix.clone().join(name)
    }

    pub(super) async fn put_if_absent(&self, name: &str, bytes: Vec<u8>) -> Result<bool, Fault> {
        let path = self.path(name);
        let put = self.put_new(&path, bytes).await?;
        // After the object: an index never names what is not there yet. A body is found by its manifest.
        if put && self.unlisted.load(Ordering::Relaxed) && !name.ends_with(".body") {
            self.index(name).await?;
        }
        Ok(put)
    }

    async fn put_new(&self, path: &Path, bytes: Vec<u8>) -> Result<bool, Fault> {
        let payload = object_store::PutPayload::from(bytes);
        if !self.is_http {
            let create = PutOptions::from(PutMode::Create);
            match self.store.put_opts(path, payload.clone(), create).await {
                Ok(_) => return Ok(true),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => return Ok(false),
                // A server that does not know conditional puts, or was said not to.
                Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {}
                Err(error) => return Err(fault(&error)),
            }
        }
        // Not atomic, and need not be: an object's name is its content's hash.
        match self.store.head(path).await {
            Ok(_) => return Ok(false),
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(fault(&error)),
        }
        self.store
            .put(path, payload)
            .await
            .map_err(|error| fault(&error))?;
        Ok(true)
    }

    pub(super) async fn get(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, Fault> {
        let got = match self.store.get(&self.path(name)).await {
            Ok(got) => got,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(fault(&error)),
        };
        if got.meta.size > most {
            return Err(Fault::TooLarge(most));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(got.meta.size).unwrap_or_default());
        let mut stream = got.into_stream();
        while let Some(part) = stream.next().await {
            let part = part.map_err(|error| fault(&error))?;
            if bytes.len() as u64 + part.len() as u64 > most {
                return Err(Fault::TooLarge(most));
            }
            bytes.extend_from_slice(&part);
        }
        Ok(Some(bytes))
    }

    pub(super) async fn list(&self, most: usize) -> Result<Listing, Fault> {
        if self.is_http {
            let objects = match self.list_stored().await {
                Ok(objects) => objects,
                Err(error) if is_unable(&error) => {
                    self.unlisted.store(true, Ordering::Relaxed);
                    let names = self.read_index().await?.unwrap_or_default();
                    names.iter().map(|name| named(name)).collect()
                }
                Err(error) => return Err(fault(&error)),
            };
            let truncated = objects.len() > most;
            return Ok(Listing {
                objects: objects.into_iter().take(most).collect(),
                truncated,
            });
        }
        let mut listing = Listing::default();
        let mut stream = self.store.list(Some(&self.prefix));
        while let Some(meta) = stream.next().await {
            let meta = match meta {
                Ok(meta) => meta,
                // The folder of a namespace that nothing was ever pushed into.
                Err(Error::NotFound { .. }) => break,
                Err(error) => return Err(fault(&error)),
            };
            if listing.objects.len() == most {
                listing.truncated = true;
                break;
            }
            listing.objects.extend(listed(&meta));
        }
        Ok(listing)
    }

    /// What a web server lists by itself (WebDAV).
    async fn list_stored(&self) -> Result<Vec<Listed>, Error> {
        match self.store.list_with_delimiter(Some(&self.prefix)).await {
            Ok(found) => Ok(found.objects.iter().filter_map(listed).collect()),
            Err(Error::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn read_index(&self) -> Result<Option<Vec<String>>, Fault> {
        // Boxed, as `get` is itself a part of it.
        let text = Box::pin(self.get(INDEX, MOST_INDEX)).await?;
        Ok(text.map(|text| {
            let text = String::from_utf8_lossy(&text).into_owned();
            text.lines().map(str::to_owned).collect()
        }))
    }

    /// Adds a name to the index. Two who do that at once can lose one of the names, so it is looked at again.
    async fn index(&self, name: &str) -> Result<(), Fault> {
        const ATTEMPTS: usize = 5;
        let _indexing = self.indexing.lock().await;
        for _ in 0..ATTEMPTS {
            let mut names = self.read_index().await?.unwrap_or_default();
            if names.iter().any(|known| known == name) {
                return Ok(());
            }
            names.push(name.to_owned());
            self.write_index(&names).await?;
        }
        Err(Fault::Failed(
            "others write the server's index all the time".to_owned(),
        ))
    }

    async fn write_index(&self, names: &[String]) -> Result<(), Fault> {
        let text = names.join("\n").into_bytes();
        let put = self.store.put(&self.path(INDEX), text.into()).await;
        put.map(|_| ()).map_err(|error| fault(&error))
    }

    pub(super) async fn delete(&self, name: &str) -> Result<(), Fault> {
        match self.store.delete(&self.path(name)).await {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(fault(&error)),
        }
        if self.unlisted.load(Ordering::Relaxed) && !name.ends_with(".body") {
            let _indexing = self.indexing.lock().await;
            let mut names = self.read_index().await?.unwrap_or_default();
            let before = names.len();
            names.retain(|known| known != name);
            if names.len() != before {
                self.write_index(&names).await?;
            }
        }
        Ok(())
    }
}

fn named(name: &str) -> Listed {
    Listed {
        name: name.to_owned(),
        size: None,
        modified: None,
    }
}

fn listed(meta: &ObjectMeta) -> Option<Listed> {
    Some(Listed {
        name: meta.location.filename()?.to_owned(),
        size: Some(meta.size),
        modified: Some(SystemTime::from(meta.last_modified)),
    })
}

/// Whether a web server says that it cannot list.
fn is_unable(error: &Error) -> bool {
    let text = error.to_string();
    matches!(
        error,
        Error::NotImplemented { .. } | Error::NotSupported { .. }
    ) || ["405", "501", "403"].iter().any(|code| text.contains(code))
}

fn fault(error: &Error) -> Fault {
    Fault::Failed(flat(error))
}

/// The store of a URL, and the path in it.
fn build<'a>(url: &'a Url, options: &Options) -> Result<(Arc<dyn ObjectStore>, &'a str), UrlError> {
    let refuse = |error: Error| UrlError::option(url, flat(&error));
    let further = || {
        let pairs = options.further.iter();
        pairs.map(|(key, value)| (key.to_ascii_lowercase(), value.clone()))
    };
    let client = client(url, options)?;
    let retry = RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: options.retries,
        retry_timeout: options.timeout,
    };
    let bucket = url.host_str().unwrap_or_default();
    let store: Arc<dyn ObjectStore> = match url.scheme() {
        "s3" => {
            let mut builder = AmazonS3Builder::new();
            for (key, value) in aws_files::settings(&|name| env::var(name).ok())
                .into_iter()
                .chain(variables("AWS_"))
                .chain(further())
            {
                if let Ok(key) = AmazonS3ConfigKey::from_str(&key) {
                    builder = builder.with_config(key, value);
                }
            }
            let mut virtual_hosts = options.path_style.map(|path| !path);
            if let Some(endpoint) = &options.endpoint {
                builder = builder.with_endpoint(endpoint);
                virtual_hosts = virtual_hosts.or(Some(false));
            }
            if let Some(region) = &options.region {
                builder = builder.with_region(region);
            }
            if let Some(virtual_hosts) = virtual_hosts {
                builder = builder.with_virtual_hosted_style_request(virtual_hosts);
            }
            let builder = builder
                .with_bucket_name(bucket)
                .with_client_options(client)
                .with_retry(retry);
            Arc::new(builder.build().map_err(refuse)?)
        }
        "gs" => {
            let mut builder = GoogleCloudStorageBuilder::from_env();
            for (key, value) in further() {
                if let Ok(key) = GoogleConfigKey::from_str(&key) {
                    builder = builder.with_config(key, value);
                }
            }
            if let Some(endpoint) = &options.endpoint {
                builder = builder.with_base_url(endpoint);
            }
            let builder = builder
                .with_bucket_name(bucket)
                .with_client_options(client)
                .with_retry(retry);
            Arc::new(builder.build().map_err(refuse)?)
        }
        "az" => {
            let mut builder = MicrosoftAzureBuilder::from_env();
            for (key, value) in further() {
                if let Ok(key) = AzureConfigKey::from_str(&key) {
                    builder = builder.with_config(key, value);
                }
            }
            if let Some(endpoint) = &options.endpoint {
                builder = builder.with_endpoint(endpoint.clone());
            }
            let builder = builder
                .with_container_name(bucket)
                .with_client_options(client)
                .with_retry(retry);
            Arc::new(builder.build().map_err(refuse)?)
        }
        "file" => {
            let store = LocalFileSystem::new();
            return Ok((Arc::new(store), url.path()));
        }
        // http, https
        _ => {
            let mut origin = url.clone();
            origin.set_path("/");
            origin.set_query(None);
            let builder = HttpBuilder::new()
                .with_url(origin)
                .with_client_options(client)
                .with_retry(retry);
            Arc::new(builder.build().map_err(refuse)?)
        }
    };
    Ok((store, url.path()))
}

/// The variables that begin with `prefix`, as object_store names them.
fn variables(prefix: &str) -> impl Iterator<Item = (String, String)> {
    env::vars_os().filter_map(move |(name, value)| {
        let name = name.into_string().ok()?;
        let is_ours = name.starts_with(prefix);
        Some((name.to_ascii_lowercase(), value.into_string().ok()?)).filter(|_| is_ours)
    })
}

fn client(url: &Url, options: &Options) -> Result<ClientOptions, UrlError> {
    let endpoint = options.endpoint.clone();
    let endpoint = endpoint.or_else(|| env::var("AWS_ENDPOINT_URL_S3").ok());
    let endpoint = endpoint.or_else(|| env::var("AWS_ENDPOINT_URL").ok());
    let plain = url.scheme() == "http" || endpoint.is_some_and(|at| at.starts_with("http://"));
    let mut client = ClientOptions::new()
        .with_connect_timeout(options.connect_timeout)
        .with_timeout(options.timeout);
    for (key, value) in &options.further {
        if let Ok(key) = ClientConfigKey::from_str(&key.to_ascii_lowercase()) {
            client = client.with_config(key, value);
        }
    }
    if plain {
        client = client.with_allow_http(true);
    }
    if let Some(path) = &options.ca_file {
        let fail = |problem: String| UrlError::Certificates {
            path: path.clone(),
            problem,
        };
        let pem = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
        let certificates =
            Certificate::from_pem_bundle(&pem).map_err(|error| fail(error.to_string()))?;
        if certificates.is_empty() {
            return Err(fail("it holds none; write them as PEM".to_owned()));
        }
        for certificate in certificates {
            client = client.with_root_certificate(certificate);
        }
    }
    Ok(client)
}
