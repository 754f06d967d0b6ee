//! Every parser on mutated seeds, for KIDAFS_FUZZ_SECONDS each (5 unless told otherwise), without a nightly
//! toolchain. The seeds are `fuzz/corpus/<target>`; the same numbers follow on one seed number
//! (KIDAFS_FUZZ_SEED, 1 unless told otherwise), so a failure can be had again.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use kidafs_fuzz::TARGETS;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// An input longer than this tells no more than a shorter one.
const MAX_LEN: usize = 1 << 16;

/// One input may take this long, on a machine that does other things as well.
const SLOW: Duration = Duration::from_secs(10);

fn number(variable: &str, usual: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
        Err(_) => usual,
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.unwrap().path())
        .collect();
    paths.sort();
    let mut seeds: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(!seeds.is_empty(), "{} is empty", folder.display());
    seeds.push(Vec::new());
    seeds
}

/// Changes an input a little, or joins it with another.
fn mutate(random: &mut StdRng, input: &mut Vec<u8>, other: &[u8]) {
    const NUMBERS: [u32; 9] = [
        0,
        1,
        0x7f,
        0x80,
        0xff,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        u32::MAX,
    ];
    let at = random.random_range(0..=input.len());
    let len = random.random_range(0..=(input.len() - at).min(64));
    match random.random_range(0..9) {
        0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
        1 if at < input.len() => input[at] = random.random(),
        2 => input.insert(at, random.random()),
        3 => drop(input.drain(at..at + len)),
        4 => input.truncate(at),
        5 => {
            let part = input[at..at + len].to_vec();
            input.splice(at..at, part);
        }
        6 if at + 4 <= input.len() => {
            let number = NUMBERS[random.random_range(0..NUMBERS.len())];
            input[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        7 => {
            let from = random.random_range(0..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => {
            let from = random.random_range(0..=other.len());
            let end = (from + 32).min(other.len());
            input.splice(at..at + len, other[from..end].iter().copied());
        }
    }
    input.truncate(MAX_LEN);
}

fn run(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let seeds = seeds(name);
    let mut random = StdRng::seed_from_u64(number("KIDAFS_FUZZ_SEED", 1));
    let end = Instant::now() + Duration::from_secs(number("KIDAFS_FUZZ_SECONDS", 5));
    let mut tried = 0u64;
    let mut pool = seeds.clone();
    while Instant::now() < end || tried < seeds.len() as u64 {
        // Each seed as it is, then mutants, and mutants of these.
        let mut input = pool[tried as usize % pool.len()].clone();
        if tried >= seeds.len() as u64 {
            for _ in 0..random.random_range(1..8) {
                let other = random.random_range(0..pool.len());
                mutate(&mut random, &mut input, &pool[other]);
            }
        }
        let began = Instant::now();
        let held = catch_unwind(AssertUnwindSafe(|| target(&input)));
        let took = began.elapsed();
        assert!(
            held.is_ok() && took < SLOW,
            "{name} did not hold ({took:?}) for the {} bytes {}",
            input.len(),
            input.escape_ascii()
        );
        tried += 1;
        if random.random_range(0..64) == 0 {
            // A pool of bounded size: an input in the place of an older one, never of a seed's.
            if pool.len() < seeds.len() + 64 {
                pool.push(input);
            } else {
                let place = random.random_range(seeds.len()..pool.len());
                pool[place] = input;
            }
        }
    }
    println!("{name}: {tried} inputs");
}

#[test]
fn each_target_has_a_corpus_and_a_program_for_cargo_fuzz() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, _) in TARGETS {
        let program = fs::read_to_string(root.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(
            program.contains(&format!("kidafs_fuzz::{name}(data)")),
            "{name}"
        );
        seeds(name);
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)); })*
    };
}

targets!(engines entry manifest marshal mountinfo names options patterns pickle sources warnings);
