//! The memory tier: content by inode number, within a budget of bytes.

use std::sync::Arc;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

/// What one item costs beside its bytes: the map's slot, the `Arc`'s header, the allocator's.
const ITEM_OVERHEAD: u64 = 96;

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<u64, Arc<[u8]>> for ByBytes {
    fn weight(&self, _ino: &u64, content: &Arc<[u8]>) -> u64 {
        content.len() as u64 + ITEM_OVERHEAD
    }
}

/// Committed content kept in memory in front of the disk tier.
///
/// Content is immutable: an entry that changes gets new content. What falls out is still on disk.
/// The policy is `quick_cache`'s variant of CLOCK-Pro, which one pass over everything (`cp -a`, `grep -r`)
/// does not flush.
#[derive(Debug)]
pub struct MemoryTier {
    cache: Cache<u64, Arc<[u8]>, ByBytes>,
    budget: u64,
}

impl MemoryTier {
    /// A tier that keeps at most `budget` bytes; 0 keeps nothing.
    pub fn new(budget: u64) -> Self {
        // One shard: a budget split over shards would refuse an entry larger than a shard's part.
        let options = OptionsBuilder::new()
            .estimated_items_capacity(
                usize::try_from(budget / 16_384)
                    .unwrap_or(0)
                    .clamp(16, 65_536),
            )
            .weight_capacity(budget)
            .shards(1)
            .build();
        let cache = match options {
            Ok(options) => Cache::with_options(
                options,
                ByBytes,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            // All mandatory options are given above; this arm only keeps a change of the library from panicking.
            Err(_) => Cache::with_weighter(16, budget, ByBytes),
        };
        Self { cache, budget }
    }

    /// The content of inode `ino`, if it is here.
    pub fn get(&self, ino: u64) -> Option<Arc<[u8]>> {
        self.cache.get(&ino)
    }

    /// As [`MemoryTier::get`], but does not count as a use.
    pub fn peek(&self, ino: u64) -> Option<Arc<[u8]>> {
        self.cache.peek(&ino)
    }

    /// Whether the content of inode `ino` is here; does not count as a use.
    pub fn contains(&self, ino: u64) -> bool {
        self.cache.contains_key(&ino)
    }

    /// Keeps `content`, making room by the policy; content larger than the budget is not kept.
    pub fn insert(&self, ino: u64, content: Arc<[u8]>) {
        if self.fits(content.len() as u64) {
            self.cache.insert(ino, content);
        }
    }

    /// Whether content of `len` bytes would be kept at all.
    pub fn fits(&self, len: u64) -> bool {
        len + ITEM_OVERHEAD <= self.budget
    }

    /// Forgets the content of inode `ino`.
    pub fn remove(&self, ino: u64) {
        self.cache.remove(&ino);
    }

    /// Bytes kept, with each item's overhead.
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// Items kept.
    pub fn entries(&self) -> u64 {
        self.cache.len() as u64
    }

    /// The budget in bytes.
    pub fn budget(&self) -> u64 {
        self.budget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(len: usize) -> Arc<[u8]> {
        vec![7; len].into()
    }

    #[test]
    fn never_above_its_budget() {
        let tier = MemoryTier::new(100_000);
        for ino in 0..1_000 {
            tier.insert(ino, content(1_000));
            assert!(tier.bytes() <= 100_000);
        }
        assert!(tier.entries() > 50, "kept only {}", tier.entries());
    }

    #[test]
    fn content_above_the_budget_is_not_kept() {
        let tier = MemoryTier::new(100_000);
        tier.insert(1, content(100_000));
        assert!(tier.get(1).is_none());
        tier.insert(2, content(90_000));
        assert!(tier.get(2).is_some());
        let none = MemoryTier::new(0);
        none.insert(1, content(1));
        assert!(none.get(1).is_none());
    }

    #[test]
    fn a_scan_does_not_flush_what_is_in_use() {
        let tier = MemoryTier::new(200 * 1_100);
        for round in 0..20 {
            for ino in 0..100 {
                if tier.get(ino).is_none() {
                    tier.insert(ino, content(1_000));
                }
            }
            let scan = 1_000 + round * 500;
            for ino in scan..scan + 500 {
                tier.insert(ino, content(1_000));
            }
        }
        let kept = (0..100).filter(|ino| tier.contains(*ino)).count();
        assert!(kept > 80, "only {kept} of 100 hot items survived the scans");
    }
}
