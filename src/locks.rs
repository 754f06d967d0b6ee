//! Locks with ranks: in which order they are taken is written on their types and checked in debug builds.
//!
//! | rank | what it guards | over I/O |
//! |---|---|---|
//! | [`SWEEP`] | the removal of victims | yes |
//! | [`NAMES`] | changes of the names of a directory, on disk and in memory; two at once by inode number | yes |
//! | [`CONTENT`] | a file's content; two at once when one replaces the other | yes |
//! | [`DIRTY`] | the list of files to be written back | no |
//! | [`CHILDREN`] | the names of a directory in memory | no |
//! | [`META`] | attributes and place of an inode | no |
//! | [`REFUSED`] | the renames that were refused | no |
//!
//! A lock is taken only while all that the thread holds are of lower ranks, or of its own where the table says two. The
//! ranks from [`DIRTY`] on are short: the disk tier calls [`assert_none_is_short`] before each step, so that none of
//! them is ever held while the disk is used.

use std::ops::{Deref, DerefMut};

/// See the table.
pub const SWEEP: u8 = 10;
/// See the table.
pub const NAMES: u8 = 20;
/// See the table.
pub const CONTENT: u8 = 30;
/// See the table.
pub const DIRTY: u8 = 40;
/// See the table.
pub const CHILDREN: u8 = 50;
/// See the table.
pub const META: u8 = 60;
/// See the table.
pub const REFUSED: u8 = 70;

/// The lowest rank of a lock that is not held while the disk is used.
const SHORT: u8 = DIRTY;

/// Ranks of which a thread may hold two.
const PAIRS: [u8; 2] = [NAMES, CONTENT];

#[cfg(debug_assertions)]
thread_local! {
    static HELD: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// That this thread holds a lock of a rank.
#[derive(Debug)]
struct Held(#[cfg(debug_assertions)] u8);

impl Held {
    fn new(rank: u8) -> Self {
        #[cfg(debug_assertions)]
        HELD.with_borrow_mut(|held| {
            let highest = held.iter().copied().max().unwrap_or(0);
            let fits = highest < rank || highest == rank && PAIRS.contains(&rank);
            assert!(
                fits,
                "a lock of rank {rank} is taken while {held:?} are held"
            );
            held.push(rank);
        });
        #[cfg(not(debug_assertions))]
        let _ = (rank, PAIRS);
        Self(
            #[cfg(debug_assertions)]
            rank,
        )
    }
}

#[cfg(debug_assertions)]
impl Drop for Held {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| {
            if let Some(at) = held.iter().rposition(|rank| *rank == self.0) {
                held.remove(at);
            }
        });
    }
}

/// Fails, in a debug build, if this thread holds a lock that must not be held while the disk is used.
pub fn assert_none_is_short() {
    #[cfg(debug_assertions)]
    HELD.with_borrow(|held| {
        let short = held.iter().any(|rank| *rank >= SHORT);
        assert!(
            !short,
            "the disk is used while locks of the ranks {held:?} are held"
        );
    });
    #[cfg(not(debug_assertions))]
    let _ = SHORT;
}

/// A mutex with a rank.
#[derive(Debug, Default)]
pub struct Mutex<const RANK: u8, T>(parking_lot::Mutex<T>);

impl<const RANK: u8, T> Mutex<RANK, T> {
    /// A free one.
    pub fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }

    /// Waits for it.
    pub fn lock(&self) -> Guard<parking_lot::MutexGuard<'_, T>> {
        let held = Held::new(RANK);
        Guard(self.0.lock(), held)
    }

    /// Takes it if it is free. It is not waited for, but the order is the same.
    pub fn try_lock(&self) -> Option<Guard<parking_lot::MutexGuard<'_, T>>> {
        let held = Held::new(RANK);
        self.0.try_lock().map(|guard| Guard(guard, held))
    }
}

/// A lock for many readers or one writer, with a rank.
#[derive(Debug, Default)]
pub struct RwLock<const RANK: u8, T>(parking_lot::RwLock<T>);

impl<const RANK: u8, T> RwLock<RANK, T> {
    /// A free one.
    pub fn new(value: T) -> Self {
        Self(parking_lot::RwLock::new(value))
    }

    /// Waits to read.
    pub fn read(&self) -> Guard<parking_lot::RwLockReadGuard<'_, T>> {
        let held = Held::new(RANK);
        Guard(self.0.read(), held)
    }

    /// Waits to write.
    pub fn write(&self) -> Guard<parking_lot::RwLockWriteGuard<'_, T>> {
        let held = Held::new(RANK);
        Guard(self.0.write(), held)
    }
}

/// A lock that is held; given back when this is dropped.
#[derive(Debug)]
pub struct Guard<G>(
    G,
    #[allow(dead_code, reason = "it is there for its end")] Held,
);

impl<G: Deref> Deref for Guard<G> {
    type Target = G::Target;

    fn deref(&self) -> &G::Target {
        &self.0
    }
}

impl<G: DerefMut> DerefMut for Guard<G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.0
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    fn fails(run: impl FnOnce() + std::panic::UnwindSafe) -> bool {
        std::panic::catch_unwind(run).is_err()
    }

    #[test]
    fn locks_are_taken_in_the_order_of_their_ranks() {
        let names = [Mutex::<NAMES, ()>::default(), Mutex::default()];
        let (children, meta) = (
            RwLock::<CHILDREN, ()>::default(),
            Mutex::<META, ()>::default(),
        );
        {
            let _one = names[0].lock();
            let _two = names[1].try_lock();
            let _children = children.read();
            let _meta = meta.lock();
        }
        // Given back in any order.
        let one = names[0].lock();
        let held = children.write();
        drop(one);
        drop(held);
        assert!(fails(|| {
            let (meta, other) = (Mutex::<META, ()>::default(), Mutex::<META, ()>::default());
            let _meta = meta.lock();
            let _other = other.lock();
        }));
        assert!(fails(|| {
            let (meta, names) = (Mutex::<META, ()>::default(), Mutex::<NAMES, ()>::default());
            let _meta = meta.lock();
            let _names = names.lock();
        }));
    }

    #[test]
    fn the_disk_is_not_used_under_a_short_lock() {
        let names = Mutex::<NAMES, ()>::default();
        let _names = names.lock();
        assert_none_is_short();
        assert!(fails(|| {
            let meta = Mutex::<META, ()>::default();
            let _meta = meta.lock();
            assert_none_is_short();
        }));
        assert_none_is_short();
    }
}
