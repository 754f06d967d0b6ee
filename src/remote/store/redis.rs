//! Redis and Valkey, by the crate `redis`.
//!
//! | key | what |
//! |---|---|
//! | `kidafs:NAMESPACE:v1:NAME` | an object |
//! | `kidafs:NAMESPACE:v1` | a sorted set of the objects' names, each with the time at which it expires |
//!
//! The set is what is listed: `SCAN` would go through all that others keep there. What has expired is left out, and
//! taken out of it by the next push.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisError, TlsCertificates};
use tokio::sync::Mutex;
use url::Url;

use super::options::{Options, UrlError};
use super::{Fault, Listed, Listing, flat};
use crate::remote::manifest::Namespace;

/// How long after its time a name stays in the set: clocks differ.
const SLACK: Duration = Duration::from_secs(24 * 3600);

/// The variable that `redis-cli` reads a password from.
const PASSWORD: &str = "REDISCLI_AUTH";

pub(super) struct Redis {
    client: Client,
    config: AsyncConnectionConfig,
    /// The set's key, and with `:` and a name an object's.
    key: String,
    expire: Option<Duration>,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Redis {
    pub(super) fn open(
        url: &Url,
        namespace: &Namespace,
        options: &Options,
    ) -> Result<Self, UrlError> {
        let refuse = |error: RedisError| UrlError::option(url, flat(&error));
        let mut info = url.as_str().into_connection_info().map_err(refuse)?;
        if info.redis_settings().password().is_none()
            && let Ok(password) = std::env::var(PASSWORD)
        {
            let settings = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(settings);
        }
        let client = match &options.ca_file {
            Some(path) if url.scheme() == "rediss" => {
                let pem = std::fs::read(path).map_err(|error| UrlError::Certificates {
                    path: path.clone(),
                    problem: error.to_string(),
                })?;
                let certificates = TlsCertificates {
                    client_tls: None,
                    root_cert: Some(pem),
                };
                Client::build_with_tls(info, certificates)
            }
            _ => Client::open(info),
        };
        Ok(Self {
            client: client.map_err(refuse)?,
            config: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(options.connect_timeout))
                .set_response_timeout(Some(options.timeout)),
            key: format!("kidafs:{namespace}:v1"),
            expire: options.expire,
            connection: Mutex::new(None),
        })
    }

    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.key)
    }

    /// Sends one request, on a connection that is made anew if the last one broke.
    async fn ask<T: redis::FromRedisValue>(&self, request: &redis::Pipeline) -> Result<T, Fault> {
        let kept = self.connection.lock().await.clone();
        if let Some(mut connection) = kept {
            match request.query_async(&mut connection).await {
                // An idle connection that the other side has closed meanwhile.
                Err(error) if error.is_unrecoverable_error() && !error.is_timeout() => {}
                answer => return answer.map_err(fault),
            }
        }
        let connected = self
            .client
            .get_multiplexed_async_connection_with_config(&self.config)
            .await;
        let mut connection = connected.map_err(fault)?;
        *self.connection.lock().await = Some(connection.clone());
        request.query_async(&mut connection).await.map_err(fault)
    }

    pub(super) async fn put_if_absent(&self, name: &str, bytes: Vec<u8>) -> Result<bool, Fault> {
        let mut set = redis::cmd("SET");
        set.arg(self.key(name)).arg(bytes).arg("NX");
        let until = match self.expire {
            Some(expire) => {
                set.arg("EX").arg(expire.as_secs().max(1));
                (now() + expire).as_secs().to_string()
            }
            None => "+inf".to_owned(),
        };
        let mut request = redis::pipe();
        request.atomic().add_command(set);
        let over = now().saturating_sub(SLACK).as_secs();
        request
            .cmd("ZADD")
            .arg(&self.key)
            .arg(until)
            .arg(name)
            .ignore();
        request
            .cmd("ZREMRANGEBYSCORE")
            .arg(&self.key)
            .arg("-inf")
            .arg(format!("({over}"))
            .ignore();
        let (set,): (Option<String>,) = self.ask(&request).await?;
        Ok(set.is_some())
    }

    pub(super) async fn get(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, Fault> {
        let mut request = redis::pipe();
        // Not more of a larger one than tells that it is larger.
        request.cmd("GETRANGE").arg(self.key(name)).arg(0).arg(most);
        let (bytes,): (Vec<u8>,) = self.ask(&request).await?;
        if bytes.len() as u64 > most {
            return Err(Fault::TooLarge(most));
        }
        // No object is empty, so that is how Redis says that there is none.
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    pub(super) async fn list(&self, most: usize) -> Result<Listing, Fault> {
        let mut request = redis::pipe();
        request
            .cmd("ZRANGEBYSCORE")
            .arg(&self.key)
            .arg(now().saturating_sub(SLACK).as_secs())
            .arg("+inf")
            .arg("LIMIT")
            .arg(0)
            .arg(most + 1);
        let (names,): (Vec<String>,) = self.ask(&request).await?;
        let truncated = names.len() > most;
        let objects = names.into_iter().take(most).map(|name| Listed {
            name,
            size: None,
            modified: None,
        });
        Ok(Listing {
            objects: objects.collect(),
            truncated,
        })
    }

    pub(super) async fn delete(&self, name: &str) -> Result<(), Fault> {
        let mut request = redis::pipe();
        request.atomic();
        request.cmd("DEL").arg(self.key(name)).ignore();
        request.cmd("ZREM").arg(&self.key).arg(name).ignore();
        self.ask::<()>(&request).await
    }
}

/// The time since 1970.
fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn fault(error: RedisError) -> Fault {
    Fault::Failed(flat(&error))
}
