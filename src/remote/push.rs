//! What the remote does not have: packed, signed, and put there.

use std::io;
use std::time::SystemTime;

use serde::Serialize;

use super::catalogue::{Catalogue, body_name, manifest_name};
use super::keys::SigningKey;
use super::local::{Found, Local};
use super::manifest::PackId;
use super::pack::{Builder, CLOSE_AT, Maker, Pack};
use super::pull::Versions;
use super::reject::Rejections;
use super::store::StoreError;

/// What a push did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pushed {
    /// Packs that were put there.
    pub packs: u64,
    /// Their entries.
    pub entries: u64,
    /// The entries' bytes.
    pub bytes: u64,
    /// Bytes of the bodies.
    pub body_bytes: u64,
    /// Entries that the remote had.
    pub known: u64,
    /// Files under an entry's name that are none, are too large, or went meanwhile.
    pub skipped: u64,
    /// Packs of others that were rejected: what they hold is pushed as if they were not there.
    pub rejected: Rejections,
}

/// Why a push did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory, or memory.
    #[error("cannot pack {dir}: {error}")]
    Local {
        /// The directory.
        dir: String,
        /// Why.
        error: io::Error,
    },
}

/// Pushes a directory.
#[derive(Debug)]
pub struct Pusher {
    /// The key that signs; without one packs are unsigned.
    pub key: Option<SigningKey>,
    /// Only these versions; none: all.
    pub versions: Versions,
    /// This host's name.
    pub host: String,
}

/// This host's name, as manifests give it.
pub fn host_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    name.chars().filter(|c| !c.is_control()).take(100).collect()
}

impl Pusher {
    /// Looks at the store and puts there what it lacks; with `snapshot` everything, after which the packs that were
    /// there can go. The report tells what was done, also when it ends in an error.
    pub fn push(
        &self,
        catalogue: &mut Catalogue<'_>,
        local: &Local,
        snapshot: bool,
    ) -> (Pushed, Result<(), PushError>) {
        let mut report = Pushed::default();
        let result = self.push_into(catalogue, local, snapshot, &mut report);
        (report, result)
    }

    fn push_into(
        &self,
        catalogue: &mut Catalogue<'_>,
        local: &Local,
        snapshot: bool,
        report: &mut Pushed,
    ) -> Result<(), PushError> {
        let fail = |error| PushError::Local {
            dir: local.dir().display().to_string(),
            error,
        };
        let mut replaces = Vec::new();
        loop {
            let round = catalogue.look()?;
            report.rejected.add(&round.rejected);
            let rejected = &mut report.rejected;
            catalogue.read_all(&round.new, |_, result| {
                if let Err(reject) = result {
                    rejected.count(reject.reason);
                }
            })?;
            if !round.more {
                replaces.extend(catalogue.valid().map(|id| id.to_string()));
                break;
            }
        }
        let names = local.names().map_err(fail)?;
        let (mut batch, mut size) = (Vec::new(), 0);
        for (path, inode) in &names.paths {
            if !snapshot && catalogue.has(path) {
                report.known += 1;
                continue;
            }
            let found = match local.read(path, *inode) {
                Ok(Some(found)) => found,
                Ok(None) => {
                    report.skipped += 1;
                    continue;
                }
                Err(error) => {
                    log::warn!("{path} is not pushed: {error}");
                    report.skipped += 1;
                    continue;
                }
            };
            if !self.versions.takes(&found.entry.version) {
                continue;
            }
            let next = found.content.len() as u64;
            if size + next > CLOSE_AT && !batch.is_empty() {
                self.send(catalogue, &mut batch, Vec::new(), report, fail)?;
                size = 0;
            }
            size += next;
            batch.push(found);
        }
        if !snapshot {
            replaces.clear();
        }
        // The last one of a snapshot replaces what was there: then all of it is there.
        self.send(catalogue, &mut batch, replaces, report, fail)
    }

    fn send(
        &self,
        catalogue: &mut Catalogue<'_>,
        batch: &mut Vec<Found>,
        replaces: Vec<String>,
        report: &mut Pushed,
        fail: impl Fn(io::Error) -> PushError,
    ) -> Result<(), PushError> {
        if batch.is_empty() {
            return Ok(());
        }
        // Committed in this order, what is latest here becomes what is latest there.
        batch.sort_by(|a, b| {
            let key = |found: &Found| (found.entry.mtime, found.entry.path.clone());
            key(a).cmp(&key(b))
        });
        let maker = Maker {
            namespace: catalogue.namespace().clone(),
            epoch: catalogue.epoch(),
            host: self.host.clone(),
        };
        let mut batch = std::mem::take(batch).into_iter().peekable();
        while batch.peek().is_some() {
            let mut builder = Builder::new().map_err(&fail)?;
            while let Some(found) =
                batch.next_if(|next| !builder.is_full(next.content.len() as u64))
            {
                builder.add(found.entry, &found.content).map_err(&fail)?;
            }
            let is_last = batch.peek().is_none();
            let replaces = if is_last {
                replaces.clone()
            } else {
                Vec::new()
            };
            let pack = builder
                .finish(&maker, replaces, SystemTime::now(), self.key.as_ref())
                .map_err(&fail)?;
            put(catalogue, pack, report)?;
        }
        Ok(())
    }
}

/// Puts a pack there: its body first, so that nobody finds a manifest whose body is still to come.
fn put(
    catalogue: &mut Catalogue<'_>,
    pack: Pack,
    report: &mut Pushed,
) -> Result<PackId, StoreError> {
    let store = catalogue.store();
    let body_bytes = pack.body.len() as u64;
    store.put_if_absent(&body_name(pack.id), pack.body)?;
    store.put_if_absent(&manifest_name(pack.id), pack.manifest)?;
    catalogue.take(pack.id, &pack.parsed);
    report.packs += 1;
    report.entries += pack.parsed.entries.len() as u64;
    report.bytes += pack.parsed.body.content;
    report.body_bytes += body_bytes;
    Ok(pack.id)
}
