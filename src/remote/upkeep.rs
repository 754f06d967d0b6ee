//! What whoever keeps a remote does with it: look, check, clear, and remove what can go.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::catalogue::{
    AT_ONCE, Catalogue, Checked, Object, at_once, body_name, epoch_name, lock, manifest_name,
};
use super::envelope::{Subject, seal};
use super::keys::SigningKey;
use super::manifest::{Epoch, FORMAT, MOST_BODY, PackId};
use super::pack::{read_body, seconds, tool};
use super::reject::{Reason, Reject};
use super::store::{Fault, Store, StoreError};
use crate::format::Engines;

/// A body without a manifest is left alone for so long: its manifest may be on its way, and clocks differ.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 3600);

/// How many numbers are tried for a new epoch: somebody else may begin one at the same time.
const EPOCHS_TRIED: u64 = 16;

/// A pack, or what lies under a pack's name.
pub type Judged = (PackId, Result<Checked, Reject>);

/// All packs of a namespace, by the time at which they were made; what is rejected comes last.
///
/// # Errors
/// When the store cannot be read.
pub fn all(catalogue: &mut Catalogue<'_>) -> Result<Vec<Judged>, StoreError> {
    let mut found: Vec<Judged> = Vec::new();
    loop {
        let round = catalogue.look()?;
        catalogue.read_all(&round.new, |id, result| found.push((id, result)))?;
        if !round.more {
            break;
        }
    }
    found.sort_by_key(|(id, result)| {
        let created = result.as_ref().ok().map(|pack| pack.manifest.created);
        (created.is_none(), created, *id)
    });
    Ok(found)
}

/// Reads a pack's body to its end and checks every entry; the rejections that a pull would count.
///
/// # Errors
/// When the store cannot be read.
pub fn check(
    store: &dyn Store,
    engines: &Engines,
    pack: &Checked,
) -> Result<Vec<Reject>, StoreError> {
    let most = pack.manifest.body.size.min(MOST_BODY);
    let body = match store.get(&body_name(pack.id), most) {
        Ok(Some(body)) => body,
        Ok(None) => {
            let text = "its body is not there";
            return Ok(vec![Reject::new(Reason::MissingBody, text)]);
        }
        Err(error) if matches!(error.fault, Fault::TooLarge(_)) => {
            let text = "the body is larger than the manifest says";
            return Ok(vec![Reject::new(Reason::BadBody, text)]);
        }
        Err(error) => return Err(error),
    };
    let mut bad = Vec::new();
    let read = read_body(
        &pack.manifest,
        &body,
        |_| true,
        |index, content| {
            let entry = &pack.manifest.entries[index];
            match content {
                Ok(content) => {
                    let found = super::local::engine_of(engines, &entry.path, content);
                    if found.is_none_or(|engine| engine.as_str() != entry.engine) {
                        let text = format!("{} is no entry of {}", entry.path, entry.engine);
                        bad.push(Reject::new(Reason::BadEntry, text));
                    }
                }
                Err(reject) => bad.push(reject),
            }
            true
        },
    );
    bad.extend(read.err());
    Ok(bad)
}

/// Why an object of a remote can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spent {
    /// The namespace was cleared since.
    Cleared,
    /// A snapshot has taken its place.
    Replaced,
    /// Everything in it is in packs that stay.
    Covered,
    /// It is older than was asked for.
    Expired,
    /// A body without a manifest.
    Orphaned,
    /// It is rejected, and that it goes was asked for.
    Rejected,
}

impl std::fmt::Display for Spent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cleared => "cleared",
            Self::Replaced => "replaced",
            Self::Covered => "covered",
            Self::Expired => "expired",
            Self::Orphaned => "orphaned",
            Self::Rejected => "rejected",
        })
    }
}

/// What is to be removed beside what nobody can use any more.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    /// Packs that were made longer ago, by their makers' clocks.
    pub max_age: Option<Duration>,
    /// Packs that are rejected here.
    pub rejected: bool,
}

/// The packs that can go, and why; their bodies go with them.
///
/// # Errors
/// When the store cannot be read.
pub fn spent(
    catalogue: &mut Catalogue<'_>,
    rules: Rules,
    now: SystemTime,
) -> Result<BTreeMap<PackId, Spent>, StoreError> {
    let found = all(catalogue)?;
    let mut spent = BTreeMap::new();
    let mut replaced = HashSet::new();
    for (_, result) in &found {
        if let Ok(pack) = result {
            replaced.extend(
                pack.manifest
                    .replaces
                    .iter()
                    .filter_map(|id| PackId::parse(id)),
            );
        }
    }
    let mut staying: Vec<&Checked> = Vec::new();
    for (id, result) in &found {
        let why = match result {
            Err(reject) if reject.reason == Reason::Cleared => Some(Spent::Cleared),
            Err(_) => rules.rejected.then_some(Spent::Rejected),
            Ok(_) if replaced.contains(id) => Some(Spent::Replaced),
            Ok(pack) => {
                let age = now.duration_since(pack.manifest.created());
                let is_old = rules
                    .max_age
                    .is_some_and(|most| age.is_ok_and(|age| age > most));
                if !is_old {
                    staying.push(pack);
                }
                is_old.then_some(Spent::Expired)
            }
        };
        if let Some(why) = why {
            spent.insert(*id, why);
        }
    }
    // The oldest first: of two that hold the same, the later one stays.
    let mut holders: HashMap<&str, u32> = HashMap::new();
    for entry in staying.iter().flat_map(|pack| &pack.manifest.entries) {
        *holders.entry(&entry.path).or_default() += 1;
    }
    for pack in staying {
        let entries = &pack.manifest.entries;
        // A snapshot's last pack also says what it replaces, which may not have gone yet.
        let is_covered = pack.manifest.replaces.is_empty()
            && entries
                .iter()
                .all(|entry| holders.get(entry.path.as_str()).is_some_and(|n| *n > 1));
        if is_covered {
            for entry in entries {
                if let Some(count) = holders.get_mut(entry.path.as_str()) {
                    *count -= 1;
                }
            }
            spent.insert(pack.id, Spent::Covered);
        }
    }
    let listing = catalogue.store().list(super::catalogue::MOST_OBJECTS)?;
    let manifests: HashSet<PackId> = listing
        .objects
        .iter()
        .filter_map(|object| match Object::of(&object.name) {
            Some(Object::Manifest(id)) => Some(id),
            _ => None,
        })
        .collect();
    for object in listing.objects {
        let Some(Object::Body(id)) = Object::of(&object.name) else {
            continue;
        };
        let age = object.modified.and_then(|at| now.duration_since(at).ok());
        if !manifests.contains(&id) && age.is_some_and(|age| age > ORPHAN_AGE) {
            spent.insert(id, Spent::Orphaned);
        }
    }
    Ok(spent)
}

/// Removes packs: each manifest before its body, so that nobody finds one whose body has gone.
///
/// # Errors
/// The first error of the store.
pub fn remove(store: &dyn Store, packs: &[PackId]) -> Result<(), StoreError> {
    let failed = std::sync::Mutex::new(None);
    at_once(packs, AT_ONCE, |id| {
        let removed = store
            .delete(&manifest_name(*id))
            .and_then(|()| store.delete(&body_name(*id)));
        match removed {
            Ok(()) => true,
            Err(error) => {
                lock(&failed).get_or_insert(error);
                false
            }
        }
    });
    let failed = failed.into_inner();
    let failed = failed.unwrap_or_else(std::sync::PoisonError::into_inner);
    failed.map_or(Ok(()), Err)
}

/// Begins a new epoch, so that no pack that was ever made is taken any more, and removes everything. The number of
/// packs removed, and the epoch.
///
/// # Errors
/// When the store cannot be read or written; the epoch has then begun or not, and clearing can be repeated.
pub fn clear(
    catalogue: &mut Catalogue<'_>,
    key: Option<&SigningKey>,
    host: &str,
    now: SystemTime,
) -> Result<(u64, u64), StoreError> {
    let round = catalogue.look()?;
    let store = catalogue.store();
    let mut begun = None;
    for number in (catalogue.epoch() + 1..).take(usize::try_from(EPOCHS_TRIED).unwrap_or(1)) {
        let epoch = Epoch {
            format: FORMAT,
            namespace: catalogue.namespace().to_string(),
            epoch: number,
            created: seconds(now),
            host: host.to_owned(),
            tool: tool(),
        };
        let text = serde_json::to_vec(&epoch).unwrap_or_default();
        let failed = |text: String| StoreError {
            operation: "put",
            at: epoch_name(number),
            fault: Fault::Failed(text),
        };
        let object = seal(Subject::Epoch, &text, key).map_err(|error| failed(error.to_string()))?;
        if store.put_if_absent(&epoch_name(number), object)? {
            begun = Some(number);
            break;
        }
    }
    let Some(epoch) = begun else {
        return Err(StoreError {
            operation: "put",
            at: epoch_name(catalogue.epoch() + 1),
            fault: Fault::Failed("others keep beginning epochs here".to_owned()),
        });
    };
    let mut packs = HashSet::new();
    for object in &round.objects {
        match Object::of(&object.name) {
            Some(Object::Manifest(id) | Object::Body(id)) => {
                packs.insert(id);
            }
            Some(Object::Epoch(number)) if number < epoch => store.delete(&object.name)?,
            Some(Object::Epoch(_)) | None => {}
        }
    }
    let packs: Vec<_> = packs.into_iter().collect();
    remove(store, &packs)?;
    Ok((packs.len() as u64, epoch))
}
