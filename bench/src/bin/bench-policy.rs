//! Which policy the memory tier should have: the hit rates of three on made-up traces, at several budgets.
//!
//! `scripts/bench` runs it; it prints one JSON object. All three see the same requests, keep the same bytes and
//! are filled in the same way: what is missed is inserted.

use std::sync::Arc;

use kidafs::tier::MemoryTier;
use rand::distr::weighted::WeightedIndex;
use rand::prelude::*;
use rand::rngs::SmallRng;
use serde_json::{Map, Value, json};

/// Different entries in a trace.
const KEYS: u64 = 20_000;
/// Requests in a trace.
const REQUESTS: usize = 400_000;
/// Budgets, in hundredths of the bytes of all entries.
const BUDGETS: [u64; 5] = [1, 5, 10, 25, 50];
const SEED: u64 = 314;

fn main() {
    let contents = contents();
    let total: u64 = contents.iter().map(|content| content.len() as u64).sum();
    let mut results = Map::new();
    for (name, trace) in [
        ("skewed", skewed as fn(&mut SmallRng) -> Vec<u64>),
        ("scanned", scanned),
        ("shifting", shifting),
    ] {
        let trace = trace(&mut SmallRng::seed_from_u64(SEED));
        let mut rates = Map::new();
        for percent in BUDGETS {
            let budget = total * percent / 100;
            let mut row = Map::new();
            let mut policies: [(&str, Box<dyn Policy>); 3] = [
                ("quick_cache", Box::new(MemoryTier::new(budget))),
                ("moka", Box::new(moka(budget))),
                ("lru", Box::new(Lru::new(budget))),
            ];
            for (name, policy) in &mut policies {
                row.insert((*name).into(), hit_rate(policy.as_mut(), &trace, &contents));
            }
            rates.insert(percent.to_string(), row.into());
        }
        results.insert(name.into(), rates.into());
    }
    println!(
        "{}",
        json!({ "keys": KEYS, "requests": REQUESTS, "bytes": total, "hit_rates": results })
    );
}

/// The share of hits in the second half of a trace; the first one fills the cache.
fn hit_rate(policy: &mut dyn Policy, trace: &[u64], contents: &[Arc<[u8]>]) -> Value {
    let (warming, counted) = trace.split_at(trace.len() / 2);
    let mut run = |requests: &[u64]| {
        let mut hits = 0;
        for key in requests {
            if policy.get(*key) {
                hits += 1;
            } else if let Some(content) =
                usize::try_from(*key).ok().and_then(|key| contents.get(key))
            {
                policy.insert(*key, Arc::clone(content));
            }
        }
        hits
    };
    run(warming);
    let rate = f64::from(run(counted)) / counted.len() as f64;
    ((rate * 10_000.0).round() / 10_000.0).into()
}

/// An entry of 2 to 40 KB for each key; most are small.
fn contents() -> Vec<Arc<[u8]>> {
    let mut random = SmallRng::seed_from_u64(SEED);
    let sizes = (0..KEYS).map(|_| (2_000.0 * 20f64.powf(random.random::<f64>().powi(2))) as usize);
    // Entries of one size share their bytes: only the accounting counts here.
    let longest: Vec<u8> = vec![0; 40_001];
    let shared: Vec<Arc<[u8]>> = (0..=40)
        .map(|kilobytes| Arc::from(&longest[..kilobytes * 1_000]))
        .collect();
    sizes
        .map(|size| Arc::clone(&shared[(size / 1_000).min(40)]))
        .collect()
}

/// A few templates are loaded all the time, most hardly ever: Zipf's law with exponent 1.
fn skewed(random: &mut SmallRng) -> Vec<u64> {
    let ranks = zipf(KEYS);
    (0..REQUESTS)
        .map(|_| scatter(ranks.sample(random)))
        .collect()
}

/// An application that uses a twentieth of the templates, and every now and then something that reads every
/// entry once: a backup, `grep -r`, a new deployment's check.
fn scanned(random: &mut SmallRng) -> Vec<u64> {
    let hot = zipf(KEYS / 20);
    let mut trace = Vec::with_capacity(REQUESTS);
    while trace.len() < REQUESTS {
        trace.extend((0..40_000).map(|_| scatter(hot.sample(random))));
        trace.extend(0..KEYS);
    }
    trace.truncate(REQUESTS);
    trace
}

/// A developer or a site moves on: a window of a twentieth of the templates, which moves by a tenth of itself
/// every 5,000 requests.
fn shifting(random: &mut SmallRng) -> Vec<u64> {
    let window = KEYS / 20;
    let ranks = zipf(window);
    (0..REQUESTS)
        .map(|at| {
            let moved = (at / 5_000) as u64 * window / 10;
            (moved + ranks.sample(random) as u64 * 7 % window) % KEYS
        })
        .collect()
}

fn zipf(keys: u64) -> WeightedIndex<f64> {
    let weights = (1..=keys).map(|rank| 1.0 / rank as f64);
    WeightedIndex::new(weights).expect("there are weights, and all are positive")
}

/// The key of a rank: neighbours in popularity are none in the order of a scan. 7,919 is prime to `KEYS`.
fn scatter(rank: usize) -> u64 {
    rank as u64 * 7_919 % KEYS
}

trait Policy {
    fn get(&mut self, key: u64) -> bool;
    fn insert(&mut self, key: u64, content: Arc<[u8]>);
}

/// The one in use, `quick_cache`, just as the daemon has it.
impl Policy for MemoryTier {
    fn get(&mut self, key: u64) -> bool {
        MemoryTier::get(self, key).is_some()
    }

    fn insert(&mut self, key: u64, content: Arc<[u8]>) {
        MemoryTier::insert(self, key, content);
    }
}

type Moka = moka::sync::Cache<u64, Arc<[u8]>>;

fn moka(budget: u64) -> Moka {
    moka::sync::Cache::builder()
        .max_capacity(budget)
        .weigher(|_, content: &Arc<[u8]>| u32::try_from(content.len()).unwrap_or(u32::MAX))
        .build()
}

impl Policy for Moka {
    fn get(&mut self, key: u64) -> bool {
        moka::sync::Cache::get(self, &key).is_some()
    }

    fn insert(&mut self, key: u64, content: Arc<[u8]>) {
        moka::sync::Cache::insert(self, key, content);
        // It tidies up from time to time; a trace that runs as fast as it can is not to be an advantage.
        self.run_pending_tasks();
    }
}

/// Least recently used goes first.
struct Lru {
    cache: lru::LruCache<u64, Arc<[u8]>>,
    bytes: u64,
    budget: u64,
}

impl Lru {
    fn new(budget: u64) -> Self {
        Self {
            cache: lru::LruCache::unbounded(),
            bytes: 0,
            budget,
        }
    }
}

impl Policy for Lru {
    fn get(&mut self, key: u64) -> bool {
        self.cache.get(&key).is_some()
    }

    fn insert(&mut self, key: u64, content: Arc<[u8]>) {
        self.bytes += content.len() as u64;
        self.cache.put(key, content);
        while self.bytes > self.budget {
            let Some((_, content)) = self.cache.pop_lru() else {
                break;
            };
            self.bytes -= content.len() as u64;
        }
    }
}
