//! The pickle scanner against the interpreter's unpickler. It promises less than the marshal reader:
//! what loads is accepted, and a pickle that is cut off is rejected.

use crate::support::python::Oracle;
use kidafs::format::pickle::check;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::json;

/// Damaged pickles made of each real one.
const MUTANTS: usize = 150;

fn real_pickles(oracle: &mut Oracle) -> Vec<Vec<u8>> {
    let pickles = Oracle::byte_strings(&oracle.ask(json!({ "do": "pickles" }))["pickles"]);
    assert!(pickles.len() >= 60);
    pickles
}

#[test]
fn real_pickles_of_every_protocol_are_accepted_to_their_end() {
    let mut oracle = Oracle::start();
    let pickles = real_pickles(&mut oracle);
    assert!(
        oracle
            .judge("pickle", &pickles)
            .iter()
            .all(|&verdict| verdict == b'o')
    );
    for pickle in pickles {
        assert_eq!(
            check(&pickle),
            Ok(pickle.len()),
            "{}",
            pickle.escape_ascii()
        );
    }
}

#[test]
fn a_truncated_pickle_is_rejected_wherever_it_is_cut() {
    let mut oracle = Oracle::start();
    for pickle in real_pickles(&mut oracle) {
        let near = |end: &usize| *end < 300 || end.is_multiple_of(101) || pickle.len() - end < 50;
        for end in (0..pickle.len()).filter(near) {
            assert!(
                check(&pickle[..end]).is_err(),
                "{}",
                pickle[..end].escape_ascii()
            );
        }
    }
}

#[test]
fn what_is_rejected_does_not_load() {
    let mut oracle = Oracle::start();
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, b"kidafs: the same damage each run");
    let mut below = |limit: usize| rng.next_u32() as usize % limit.max(1);
    let mut mutants = Vec::new();
    for pickle in real_pickles(&mut oracle) {
        for _ in 0..MUTANTS {
            let mut bytes = pickle[..pickle.len().min(2000)].to_vec();
            bytes.extend_from_slice(if bytes.len() < pickle.len() {
                b"."
            } else {
                b""
            });
            let at = below(bytes.len());
            match below(5) {
                0 => bytes[at] = below(256) as u8,
                1 => bytes[at] = b"(.012FINJKLMRSTUVXabcdehijlopqrstu})]G\n"[below(39)],
                2 => bytes[at] = 0x80 + below(0x19) as u8,
                3 => bytes.insert(at, b"(.012Ntqhdeus)]}\x85\x86\x94\x8f\x90\x91"[below(22)]),
                _ => {
                    bytes.remove(at);
                }
            }
            mutants.push(bytes);
        }
    }
    let verdicts = oracle.judge("pickle", &mutants);
    let (mut rejected, mut unseen) = (0, 0);
    for (mutant, verdict) in mutants.iter().zip(verdicts) {
        match (check(mutant), verdict) {
            (Err(error), b'o') => panic!(
                "loads, yet is rejected ({error}): {}",
                mutant.escape_ascii()
            ),
            (Err(_), _) => rejected += 1,
            (Ok(_), b'r') => unseen += 1,
            (Ok(_), _) => {}
        }
    }
    println!(
        "{} damaged pickles: {rejected} rejected, {unseen} more do not load",
        mutants.len()
    );
    assert!(rejected > mutants.len() / 5);
}
