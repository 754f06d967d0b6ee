//! The names in a directory, and their order for listings.
//!
//! A listing is many requests, each of which goes on where the one before ended, and the kernel tells of no
//! opening and no closing. What it must keep to (each name once, none that stays is missed, an end) therefore
//! lies in the positions that it is given:
//!
//! - A name has a number, in the order in which names were made, and keeps it while it stands for something else:
//!   a replaced or exchanged name is neither shown twice nor missed. A name that goes and comes back
//!   while somebody lists gets the number it had.
//! - A listing ends at the numbers that there were when it began. Which ones that is goes from request to request in
//!   the low bits of its positions, as the number of a recent bound.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsStr;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::node::{Name, Node};

/// The numbers of `.` and `..`; the children's are greater.
pub(super) const DOT: u64 = 1;
pub(super) const DOT_DOT: u64 = 2;

/// Bits of a position that say which listing it belongs to.
const LISTING_BITS: u32 = 16;

/// Bounds that are remembered. The listing that began before the oldest of them ends at that.
const BOUNDS: usize = 256;

/// Names that went while somebody listed, and for how long after the last request of a listing they are kept.
const GONE: usize = 512;
const LISTED_LATELY: Duration = Duration::from_secs(60);

/// A name in its directory, with its number.
pub(super) type Child = (Name, Arc<Node>);

/// The children of a directory.
#[derive(Debug, Default)]
pub(super) struct Children {
    by_name: HashMap<Name, (u64, Arc<Node>)>,
    in_order: BTreeMap<u64, Child>,
    /// Numbers given out.
    given: u64,
    folders: Arc<AtomicU64>,
    listings: Mutex<Listings>,
}

/// What listings that may be under way need.
#[derive(Debug, Default)]
struct Listings {
    /// When one was last asked for.
    last: Option<Instant>,
    bounds: VecDeque<Listing>,
    gone: HashMap<Name, u64>,
    gone_in_order: VecDeque<Name>,
}

/// A listing, or several that began between the same two changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listing {
    id: u16,
    /// Its names have numbers up to this one.
    bound: u64,
}

impl Listing {
    /// Where this listing goes on after the name with this number.
    pub(super) fn position(self, number: u64) -> u64 {
        (number << LISTING_BITS) | u64::from(self.id)
    }
}

impl Listings {
    fn is_under_way(&self) -> bool {
        self.last.is_some_and(|last| last.elapsed() < LISTED_LATELY)
    }

    fn forget(&mut self) {
        self.gone = HashMap::new();
        self.gone_in_order = VecDeque::new();
    }

    fn went(&mut self, name: Name, number: u64) {
        if !self.is_under_way() {
            return;
        }
        self.gone.insert(Arc::clone(&name), number);
        self.gone_in_order.push_back(name);
        if self.gone_in_order.len() > GONE
            && let Some(oldest) = self.gone_in_order.pop_front()
        {
            self.gone.remove(&oldest);
        }
    }
}

impl Children {
    /// What has this name.
    pub(super) fn get(&self, name: &OsStr) -> Option<&Arc<Node>> {
        self.by_name.get(name).map(|(_, node)| node)
    }

    /// Gives a name to `node`, whatever had it before.
    pub(super) fn insert(&mut self, name: Name, node: Arc<Node>) {
        self.count(&node, 1);
        let number = match self.by_name.get(&name) {
            Some((number, before)) => {
                self.count(before, -1);
                *number
            }
            None => self.number_for(&name),
        };
        self.by_name
            .insert(Arc::clone(&name), (number, Arc::clone(&node)));
        self.in_order.insert(number, (name, node));
    }

    fn number_for(&mut self, name: &Name) -> u64 {
        let listings = self.listings.get_mut();
        if let Some(number) = listings.gone.remove(name) {
            return number;
        }
        self.given += 1;
        self.given + DOT_DOT
    }

    /// Takes a name away.
    pub(super) fn remove(&mut self, name: &OsStr) {
        if let Some((name, (number, node))) = self.by_name.remove_entry(name) {
            self.count(&node, -1);
            self.in_order.remove(&number);
            self.listings.get_mut().went(name, number);
        }
    }

    fn count(&self, node: &Node, by: i64) {
        if node.is_dir() {
            self.folders
                .fetch_add(by.cast_unsigned(), Ordering::Relaxed);
        }
    }

    /// Folders among them, as a value to be read without the lock.
    pub(super) fn folders(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.folders)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.in_order.values().map(|(_, node)| node)
    }

    /// The listing that goes on at `position` (0: a new one), and the number after which it does.
    pub(super) fn listing(&self, position: u64) -> (Listing, u64) {
        let mut listings = self.listings.lock();
        if !listings.is_under_way() {
            listings.forget();
        }
        listings.last = Some(Instant::now());
        let now = self.given + DOT_DOT;
        if position > 0 {
            let id = (position & ((1 << LISTING_BITS) - 1)) as u16;
            let known = listings.bounds.iter().find(|listing| listing.id == id);
            // Forgotten by now: it began before all that are known.
            let bound = known
                .or(listings.bounds.front())
                .map_or(now, |one| one.bound);
            return (Listing { id, bound }, position >> LISTING_BITS);
        }
        let last = listings.bounds.back().copied();
        let listing = match last {
            Some(last) if last.bound == now => last,
            last => Listing {
                id: last.map_or(0, |last| last.id.wrapping_add(1)),
                bound: now,
            },
        };
        if last != Some(listing) {
            listings.bounds.push_back(listing);
            if listings.bounds.len() > BOUNDS {
                listings.bounds.pop_front();
            }
        }
        (listing, 0)
    }

    /// The names of a listing after the number `after`, each with its own.
    pub(super) fn after(
        &self,
        listing: Listing,
        after: u64,
    ) -> impl Iterator<Item = (u64, &Name, &Arc<Node>)> {
        let after = after.max(DOT_DOT);
        let range = (
            Bound::Excluded(after),
            Bound::Included(listing.bound.max(after + 1)),
        );
        let named = self.in_order.range(range);
        named
            .filter(move |(number, _)| **number <= listing.bound)
            .map(|(number, (name, node))| (*number, name, node))
    }
}
