//! Which packs a namespace has, each checked once.
//!
//! | object | what |
//! |---|---|
//! | `<SHA-256 of the manifest>.manifest` | a manifest in its envelope |
//! | `<the same>.body` | its body |
//! | `<number, 10 digits>.epoch` | begins an epoch: packs of earlier ones are not taken any more |

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::envelope::{self, Signer, Subject};
use super::keys::Trust;
use super::manifest::{Epoch, MOST_MANIFEST, Manifest, Namespace, PackId};
use super::reject::{Reason, Reject, Rejections};
use super::store::{Fault, Listed, Store, StoreError};
use crate::format::Engines;

/// How many objects of a namespace are looked at. What lies beyond is not taken, and a warning says what to do.
pub const MOST_OBJECTS: usize = 200_000;

/// How many new packs are looked at in one round: those that were put there last.
pub const MOST_NEW: usize = 4096;

/// How many claims of an epoch that do not hold are read in one round.
const MOST_EPOCHS: usize = 8;

/// How many objects are fetched at once.
pub const AT_ONCE: usize = 8;

/// The name of a manifest's object.
pub fn manifest_name(id: PackId) -> String {
    format!("{id}.manifest")
}

/// The name of a body's object.
pub fn body_name(id: PackId) -> String {
    format!("{id}.body")
}

/// The name of the object that begins an epoch.
pub fn epoch_name(epoch: u64) -> String {
    format!("{epoch:010}.epoch")
}

/// What an object's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// A manifest.
    Manifest(PackId),
    /// A body.
    Body(PackId),
    /// The beginning of an epoch.
    Epoch(u64),
}

impl Object {
    /// Reads a name; `None` for what is not of this format.
    pub fn of(name: &str) -> Option<Self> {
        let (stem, kind) = name.split_once('.')?;
        match kind {
            "manifest" => PackId::parse(stem).map(Self::Manifest),
            "body" => PackId::parse(stem).map(Self::Body),
            "epoch" => {
                let is_number = stem.len() == 10 && stem.bytes().all(|b| b.is_ascii_digit());
                let number = stem.parse().ok().filter(|_| is_number)?;
                Some(Self::Epoch(number)).filter(|_| number > 0)
            }
            _ => None,
        }
    }
}

/// A pack whose manifest was checked.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Its name.
    pub id: PackId,
    /// What it says.
    pub manifest: Manifest,
    /// Who says so.
    pub signer: Signer,
}

/// What is known of a namespace, for as long as a process lives.
pub struct Catalogue<'a> {
    store: &'a dyn Store,
    namespace: Namespace,
    trust: Trust,
    engines: Engines,
    /// The highest epoch that was ever seen.
    epoch: u64,
    refused_epochs: HashSet<u64>,
    /// The packs that need no further look, and the hashes of their paths if they are valid.
    known: HashMap<PackId, Box<[u64]>>,
    /// How many valid packs have a path, by its hash.
    paths: HashMap<u64, u32>,
    hasher: RandomState,
    warned: bool,
}

impl std::fmt::Debug for Catalogue<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} with {} packs", self.namespace, self.known.len())
    }
}

/// What a look at the store found.
#[derive(Debug, Default)]
pub struct Round {
    /// The packs that were not known, the latest first where the store says when.
    pub new: Vec<PackId>,
    /// All manifests that are there.
    pub packs: usize,
    /// There are more new packs than one round takes.
    pub more: bool,
    /// All objects, as they were listed.
    pub objects: Vec<Listed>,
    /// Claims of an epoch that do not hold.
    pub rejected: Rejections,
}

impl<'a> Catalogue<'a> {
    /// An empty one.
    pub fn new(store: &'a dyn Store, namespace: Namespace, trust: Trust, engines: Engines) -> Self {
        Self {
            store,
            namespace,
            trust,
            engines,
            epoch: 0,
            refused_epochs: HashSet::new(),
            known: HashMap::new(),
            paths: HashMap::new(),
            hasher: RandomState::new(),
            warned: false,
        }
    }

    /// The store.
    pub fn store(&self) -> &'a dyn Store {
        self.store
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The namespace's epoch, as far as it is known.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Lists the store and reads the epoch.
    ///
    /// # Errors
    /// When the store cannot be listed, or an epoch cannot be read.
    pub fn look(&mut self) -> Result<Round, StoreError> {
        let listing = self.store.list(MOST_OBJECTS)?;
        if listing.truncated && !std::mem::replace(&mut self.warned, true) {
            log::warn!(
                "the namespace {} has more than {MOST_OBJECTS} objects, and not all are looked at: run `kidafs push --snapshot` and `kidafs remote gc`",
                self.namespace
            );
        }
        let mut round = Round::default();
        self.read_epochs(&listing.objects, &mut round.rejected)?;
        let mut new = Vec::new();
        let mut there = HashSet::new();
        for object in &listing.objects {
            if let Some(Object::Manifest(id)) = Object::of(&object.name) {
                there.insert(id);
                if !self.known.contains_key(&id) {
                    new.push((object.modified, id));
                }
            }
        }
        if !listing.truncated {
            let known = self.known.keys().copied();
            let gone: Vec<_> = known.filter(|id| !there.contains(id)).collect();
            for id in gone {
                self.forget(id);
            }
        }
        new.sort_by(|a, b| b.cmp(a));
        round.more = new.len() > MOST_NEW;
        new.truncate(MOST_NEW);
        round.new = new.into_iter().map(|(_, id)| id).collect();
        round.packs = there.len();
        round.objects = listing.objects;
        Ok(round)
    }

    fn read_epochs(
        &mut self,
        objects: &[Listed],
        rejected: &mut Rejections,
    ) -> Result<(), StoreError> {
        let numbers = objects
            .iter()
            .filter_map(|object| match Object::of(&object.name) {
                Some(Object::Epoch(number)) if number > self.epoch => Some(number),
                _ => None,
            });
        let mut numbers: Vec<_> = numbers
            .filter(|number| !self.refused_epochs.contains(number))
            .collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        for number in numbers.into_iter().take(MOST_EPOCHS) {
            match self.read_epoch(number)? {
                Ok(()) => {
                    self.epoch = number;
                    // All that was known is of the past.
                    self.known.clear();
                    self.paths.clear();
                    break;
                }
                Err(reject) => {
                    log::warn!("{} is not believed: {reject}", epoch_name(number));
                    rejected.count(reject.reason);
                    self.refused_epochs.insert(number);
                }
            }
        }
        Ok(())
    }

    fn read_epoch(&self, number: u64) -> Result<Result<(), Reject>, StoreError> {
        let object = match self.store.get(&epoch_name(number), MOST_MANIFEST) {
            Ok(Some(object)) => object,
            Ok(None) => {
                let text = "it was listed and is not there";
                return Ok(Err(Reject::new(Reason::Malformed, text)));
            }
            Err(error) => return Ok(Err(too_large(error)?)),
        };
        let read = || {
            let (_, text) = envelope::open(Subject::Epoch, &object, &self.trust)?;
            let epoch = Epoch::read(text, &self.namespace)?;
            if epoch.epoch == number {
                Ok(())
            } else {
                let text = format!("it is epoch {}", epoch.epoch);
                Err(Reject::new(Reason::WrongName, text))
            }
        };
        Ok(read())
    }

    /// Reads and checks a pack's manifest; `None` if it has gone.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn read(&self, id: PackId) -> Result<Option<Result<Checked, Reject>>, StoreError> {
        match self.store.get(&manifest_name(id), MOST_MANIFEST) {
            Ok(Some(object)) => Ok(Some(self.check(id, &object))),
            Ok(None) => Ok(None),
            Err(error) => Ok(Some(Err(too_large(error)?))),
        }
    }

    /// Checks a manifest that lies under a name.
    fn check(&self, id: PackId, object: &[u8]) -> Result<Checked, Reject> {
        let (_, text) = envelope::split(object)?;
        if PackId::of(text) != id {
            let text = "it lies under a name that is not its hash";
            return Err(Reject::new(Reason::WrongName, text));
        }
        let (signer, text) = envelope::open(Subject::Pack, object, &self.trust)?;
        let manifest = Manifest::read(text, &self.namespace, &self.engines)?;
        if manifest.epoch < self.epoch {
            let text = format!(
                "it is of epoch {}, and `remote clear` began epoch {}",
                manifest.epoch, self.epoch
            );
            return Err(Reject::new(Reason::Cleared, text));
        }
        Ok(Checked {
            id,
            manifest,
            signer,
        })
    }

    /// Remembers that a pack is rejected, and says so once.
    pub fn refuse(&mut self, id: PackId, reject: &Reject) {
        log::warn!("pack {id} is rejected: {reject}");
        self.known.insert(id, Box::new([]));
    }

    /// Remembers what a valid pack holds.
    pub fn take(&mut self, id: PackId, manifest: &Manifest) {
        if self.known.contains_key(&id) {
            return;
        }
        let paths: Box<[u64]> = manifest
            .entries
            .iter()
            .map(|entry| self.hasher.hash_one(&entry.path))
            .collect();
        for path in &paths {
            *self.paths.entry(*path).or_default() += 1;
        }
        self.known.insert(id, paths);
    }

    /// Has a pack looked at again in the next round.
    pub fn forget(&mut self, id: PackId) {
        for path in self.known.remove(&id).unwrap_or_default() {
            if let Some(count) = self.paths.get_mut(&path) {
                *count -= 1;
                if *count == 0 {
                    self.paths.remove(&path);
                }
            }
        }
    }

    /// The valid packs that are known.
    pub fn valid(&self) -> impl Iterator<Item = PackId> {
        let packs = self.known.iter();
        packs.filter_map(|(id, paths)| Some(*id).filter(|_| !paths.is_empty()))
    }

    /// Whether a known pack holds an entry of this path.
    pub fn has(&self, path: &str) -> bool {
        self.paths.contains_key(&self.hasher.hash_one(path))
    }

    /// Reads the manifests of `new`, several at once, and remembers each; `each` gets them in no order.
    ///
    /// # Errors
    /// The first error of the store; what was read before is remembered.
    pub fn read_all(
        &mut self,
        new: &[PackId],
        mut each: impl FnMut(PackId, Result<Checked, Reject>) + Send,
    ) -> Result<(), StoreError> {
        let shared = Mutex::new((Vec::new(), None));
        {
            let this = &*self;
            let each = Mutex::new(&mut each);
            at_once(new, AT_ONCE, |id| match this.read(*id) {
                Ok(Some(result)) => {
                    let noted = match &result {
                        Ok(checked) => Ok(checked.manifest.clone()),
                        Err(reject) => Err(reject.clone()),
                    };
                    lock(&shared).0.push((*id, noted));
                    lock(&each)(*id, result);
                    true
                }
                Ok(None) => true,
                Err(error) => {
                    lock(&shared).1.get_or_insert(error);
                    false
                }
            });
        }
        let (noted, error) = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (id, result) in noted {
            match result {
                Ok(manifest) => self.take(id, &manifest),
                Err(reject) => self.refuse(id, &reject),
            }
        }
        error.map_or(Ok(()), Err)
    }
}

/// The rejection of an object that is too large; any other error stays one.
fn too_large(error: StoreError) -> Result<Reject, StoreError> {
    match error.fault {
        Fault::TooLarge(most) => {
            let text = format!("it is larger than {most} bytes");
            Ok(Reject::new(Reason::TooLarge, text))
        }
        _ => Err(error),
    }
}

/// Locks; what a thread that panicked left is as good as any.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `work` with each item, on several threads, until one call returns `false`.
pub(super) fn at_once<T: Sync>(items: &[T], threads: usize, work: impl Fn(&T) -> bool + Sync) {
    let next = AtomicUsize::new(0);
    let worker = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if !work(item) {
                next.store(items.len(), Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            scope.spawn(worker);
        }
        worker();
    });
}
