//! What is missing here: fetched, checked, and committed as an engine does.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashSet};
use std::hash::BuildHasher;
use std::io;
use std::sync::{Condvar, Mutex};

use serde::Serialize;

use super::catalogue::{AT_ONCE, Catalogue, Checked, at_once, body_name, lock};
use super::local::{Committed, Local, Names};
use super::manifest::{MOST_BODY, Manifest, PackId};
use super::pack::read_body;
use super::reject::{Reason, Reject, Rejections};
use super::store::{Fault, StoreError};
use crate::format::VersionTag;

/// How many bodies are in memory at once.
const BODIES: usize = 2;

/// After so many errors in one round the rest of it is left to the next.
const MOST_ERRORS: usize = 3;

/// Which version tags are taken.
#[derive(Debug, Clone, Default)]
pub struct Versions {
    /// These, and longer ones that begin with one of them and `_`; empty: those that are in use here, or all where none
    /// is.
    pub given: Vec<VersionTag>,
}

impl Versions {
    /// Whether an entry of `version` is one of those that are given, if any are. One that serves any version is.
    pub fn takes(&self, version: &str) -> bool {
        let is_given = |tag: &VersionTag| {
            let rest = version.strip_prefix(tag.as_str());
            // The interpreter's own tag stands on what it alone writes.
            version == tag.python()
                || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        };
        version.is_empty() || self.given.is_empty() || self.given.iter().any(is_given)
    }

    /// Whether an entry of `version` is taken where `in_use` are the tags of the entries that are here. An entry that
    /// serves any version is.
    fn takes_here(&self, version: &str, in_use: &BTreeSet<String>) -> bool {
        if !self.given.is_empty() || version.is_empty() {
            return self.takes(version);
        }
        let python = |tag: &str| tag.split('_').next().map(str::to_owned);
        in_use.is_empty()
            || in_use.contains(version)
            || in_use
                .iter()
                .any(|tag| python(tag).as_deref() == Some(version))
    }
}

/// What a round of pulling did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pulled {
    /// Packs that are there.
    pub packs: u64,
    /// Packs whose body was fetched.
    pub packs_fetched: u64,
    /// Entries that are here now.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Entries that were here, or had been.
    pub known: u64,
    /// Entries of a version that is not taken.
    pub other_version: u64,
    /// Rejected packs and entries.
    pub rejected: Rejections,
}

/// Why a round of pulling did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory.
    #[error("cannot write to {dir}: {error}")]
    Local {
        /// The directory.
        dir: String,
        /// Why.
        error: io::Error,
    },
}

/// Pulls into a directory, and remembers what was here: what has gone since, because it was evicted or because its
/// engine did not want it, is not fetched again.
#[derive(Debug, Default)]
pub struct Puller {
    versions: Versions,
    /// The hashes of the paths that are or were here.
    met: HashSet<u64>,
    hasher: RandomState,
    /// Packs of which something was left out for its version, and for which versions in use that holds.
    partial: HashSet<PackId>,
    in_use: BTreeSet<String>,
}

struct Work<'w> {
    local: &'w Local,
    in_use: &'w BTreeSet<String>,
    bodies: Permits,
    /// What is under way or done, as a path's hash.
    claimed: Mutex<HashSet<u64>>,
    done: Mutex<Done>,
}

#[derive(Default)]
struct Done {
    report: Pulled,
    /// What each pack came to, and whether something of it was left out.
    packs: Vec<(PackId, Result<Taken, Reject>)>,
    errors: Vec<PullError>,
}

/// A pack of which everything that is wanted is here.
struct Taken {
    manifest: Manifest,
    /// Nothing was left out for its version.
    whole: bool,
}

impl Puller {
    /// One that has met nothing yet.
    pub fn new(versions: Versions) -> Self {
        Self {
            versions,
            ..Self::default()
        }
    }

    /// Looks at the store and fetches what is missing. The report tells what was done, also when it ends in an error.
    pub fn pull(
        &mut self,
        catalogue: &mut Catalogue<'_>,
        local: &Local,
    ) -> (Pulled, Result<(), PullError>) {
        let mut total = Pulled::default();
        loop {
            let (pulled, result) = self.round(catalogue, local);
            total.packs = pulled.packs;
            total.packs_fetched += pulled.packs_fetched;
            total.entries += pulled.entries;
            total.bytes += pulled.bytes;
            total.known += pulled.known;
            total.other_version += pulled.other_version;
            total.rejected.add(&pulled.rejected);
            match result {
                Ok(true) => {}
                Ok(false) => return (total, Ok(())),
                Err(error) => return (total, Err(error)),
            }
        }
    }

    /// One round; whether there is more.
    fn round(
        &mut self,
        catalogue: &mut Catalogue<'_>,
        local: &Local,
    ) -> (Pulled, Result<bool, PullError>) {
        let mut report = Pulled::default();
        let names = match local.names() {
            Ok(names) => names,
            Err(error) => return (report, Err(here(local, error))),
        };
        self.meet(&names, catalogue);
        let round = match catalogue.look() {
            Ok(round) => round,
            Err(error) => return (report, Err(error.into())),
        };
        report.packs = round.packs as u64;
        report.rejected = round.rejected;
        let work = Work {
            local,
            in_use: &names.versions,
            bodies: Permits::new(BODIES),
            claimed: Mutex::new(HashSet::new()),
            done: Mutex::new(Done {
                report,
                ..Done::default()
            }),
        };
        {
            let (this, catalogue) = (&*self, &*catalogue);
            at_once(&round.new, AT_ONCE, |id| this.one(catalogue, &work, *id));
        }
        let claimed = work.claimed.into_inner();
        self.met
            .extend(claimed.unwrap_or_else(std::sync::PoisonError::into_inner));
        let done = work.done.into_inner();
        let mut done = done.unwrap_or_else(std::sync::PoisonError::into_inner);
        for (id, result) in done.packs {
            match result {
                Ok(taken) => {
                    catalogue.take(id, &taken.manifest);
                    if !taken.whole {
                        self.partial.insert(id);
                    }
                }
                Err(reject) => catalogue.refuse(id, &reject),
            }
        }
        if done.errors.is_empty() {
            (done.report, Ok(round.more))
        } else {
            (done.report, Err(done.errors.swap_remove(0)))
        }
    }

    /// Remembers what is here; has packs looked at again that hold what another version in use could take.
    fn meet(&mut self, names: &Names, catalogue: &mut Catalogue<'_>) {
        for path in names.paths.keys() {
            self.met.insert(self.hasher.hash_one(path));
        }
        if self.in_use != names.versions {
            self.in_use.clone_from(&names.versions);
            for id in self.partial.drain() {
                catalogue.forget(id);
            }
        }
    }

    /// Fetches one pack; whether to go on.
    fn one(&self, catalogue: &Catalogue<'_>, work: &Work<'_>, id: PackId) -> bool {
        let fail = |error: PullError| {
            let mut done = lock(&work.done);
            let stop = matches!(&error, PullError::Local { .. })
                || matches!(&error, PullError::Store(error) if error.is_cancelled());
            done.errors.push(error);
            !stop && done.errors.len() < MOST_ERRORS
        };
        let checked = match catalogue.read(id) {
            Ok(Some(Ok(checked))) => checked,
            Ok(Some(Err(reject))) => {
                work.refuse(id, reject);
                return true;
            }
            Ok(None) => return true,
            Err(error) => return fail(error.into()),
        };
        let (wanted, whole) = self.wanted(work, &checked);
        let fetched = if wanted.is_empty() {
            Ok(())
        } else {
            let _body = work.bodies.take();
            self.fetch(catalogue, work, &checked, &wanted)
        };
        match fetched {
            Ok(()) => {
                let manifest = checked.manifest;
                let taken = Taken { manifest, whole };
                lock(&work.done).packs.push((id, Ok(taken)));
                true
            }
            Err(Left::Rejected(reject)) => {
                self.give_back(work, &checked, &wanted);
                work.refuse(id, reject);
                true
            }
            Err(Left::Error(error)) => {
                self.give_back(work, &checked, &wanted);
                fail(error)
            }
        }
    }

    /// The entries of a pack that are missing here, which nobody else will fetch from now on; and whether nothing was
    /// left out for its version.
    fn wanted(&self, work: &Work<'_>, checked: &Checked) -> (HashSet<usize>, bool) {
        let mut wanted = HashSet::new();
        let mut whole = true;
        let (mut known, mut other) = (0, 0);
        let mut claimed = lock(&work.claimed);
        for (index, entry) in checked.manifest.entries.iter().enumerate() {
            if !self.versions.takes_here(&entry.version, work.in_use) {
                whole = false;
                other += 1;
                continue;
            }
            let hash = self.hasher.hash_one(&entry.path);
            if self.met.contains(&hash) || !claimed.insert(hash) {
                known += 1;
            } else {
                wanted.insert(index);
            }
        }
        drop(claimed);
        let mut done = lock(&work.done);
        done.report.known += known;
        done.report.other_version += other;
        (wanted, whole)
    }

    /// Lets another pack, or another round, have the entries of one that failed, unless they are here by now.
    fn give_back(&self, work: &Work<'_>, checked: &Checked, wanted: &HashSet<usize>) {
        let mut claimed = lock(&work.claimed);
        for index in wanted {
            let entry = &checked.manifest.entries[*index];
            claimed.remove(&self.hasher.hash_one(&entry.path));
        }
    }

    /// Fetches a body and commits what is wanted of it.
    fn fetch(
        &self,
        catalogue: &Catalogue<'_>,
        work: &Work<'_>,
        checked: &Checked,
        wanted: &HashSet<usize>,
    ) -> Result<(), Left> {
        let manifest = &checked.manifest;
        let most = manifest.body.size.min(MOST_BODY);
        let body = match catalogue.store().get(&body_name(checked.id), most) {
            Ok(Some(body)) => body,
            Ok(None) => {
                let text = "its body is not there";
                return Err(Left::Rejected(Reject::new(Reason::MissingBody, text)));
            }
            Err(error) if matches!(error.fault, Fault::TooLarge(_)) => {
                let text = "the body is larger than the manifest says";
                return Err(Left::Rejected(Reject::new(Reason::BadBody, text)));
            }
            Err(error) => return Err(Left::Error(error.into())),
        };
        lock(&work.done).report.packs_fetched += 1;
        let mut failed = None;
        let read = read_body(
            manifest,
            &body,
            |index| wanted.contains(&index),
            |index, content| {
                let entry = &manifest.entries[index];
                let judged = content.and_then(|content| {
                    let engine = work.local.engine_of(&entry.path, content);
                    if engine.is_some_and(|engine| engine.as_str() == entry.engine) {
                        return Ok(content);
                    }
                    let text = format!("{} is no entry of {}", entry.path, entry.engine);
                    Err(Reject::new(Reason::BadEntry, text))
                });
                let content = match judged {
                    Ok(content) => content,
                    Err(reject) => {
                        log::warn!("an entry of pack {} is rejected: {reject}", checked.id);
                        lock(&work.done).report.rejected.count(reject.reason);
                        return true;
                    }
                };
                match work.local.commit(entry, content) {
                    Ok(committed) => {
                        let mut done = lock(&work.done);
                        if committed == Committed::Yes {
                            done.report.entries += 1;
                            done.report.bytes += entry.size;
                        } else {
                            done.report.known += 1;
                        }
                        true
                    }
                    Err(error) => {
                        failed = Some(here(work.local, error));
                        false
                    }
                }
            },
        );
        match failed {
            Some(error) => Err(Left::Error(error)),
            None => read.map_err(Left::Rejected),
        }
    }
}

/// Why a pack was not fetched to its end.
enum Left {
    Rejected(Reject),
    Error(PullError),
}

impl Work<'_> {
    fn refuse(&self, id: PackId, reject: Reject) {
        let mut done = lock(&self.done);
        done.report.rejected.count(reject.reason);
        done.packs.push((id, Err(reject)));
    }
}

fn here(local: &Local, error: io::Error) -> PullError {
    PullError::Local {
        dir: local.dir().display().to_string(),
        error,
    }
}

/// A number of permits, each held by one thread at a time.
struct Permits {
    free: Mutex<usize>,
    returned: Condvar,
}

struct Permit<'p>(&'p Permits);

impl Permits {
    fn new(number: usize) -> Self {
        Self {
            free: Mutex::new(number),
            returned: Condvar::new(),
        }
    }

    fn take(&self) -> Permit<'_> {
        let free = self
            .returned
            .wait_while(lock(&self.free), |free| *free == 0);
        *free.unwrap_or_else(std::sync::PoisonError::into_inner) -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.returned.notify_one();
    }
}

#[cfg(test)]
mod tests;
