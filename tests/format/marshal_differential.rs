//! The marshal reader against the interpreter's own: what `marshal.loads` accepts is accepted, what
//! it rejects is rejected. Streams on which the interpreter crashes are counted and not compared.

use crate::support::python::Oracle;
use kidafs::format::marshal::{check, check_any, describe};
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::json;

/// Damaged streams made of each real one.
const MUTANTS: usize = 120;

/// What the reader says, in the oracle's letters.
fn verdict(stream: &[u8]) -> u8 {
    let verdict = match check_any(stream) {
        Ok(checked) if checked.is_code => b'c',
        Ok(_) => b'o',
        Err(_) => b'r',
    };
    assert_eq!(check(stream).is_ok(), verdict == b'c');
    assert_eq!(describe(stream).is_ok(), verdict == b'c');
    verdict
}

/// Asks the oracle about all streams and compares; returns how many it accepted, rejected and died of.
fn compare(oracle: &mut Oracle, streams: &[Vec<u8>]) -> [usize; 3] {
    let mut counts = [0; 3];
    let mut differences = Vec::new();
    for (stream, theirs) in streams.iter().zip(oracle.judge("marshal", streams)) {
        counts[match theirs {
            b'x' => 2,
            b'r' => 1,
            _ => 0,
        }] += 1;
        let ours = verdict(stream);
        if theirs != b'x' && theirs != ours {
            differences.push(format!(
                "the interpreter says {}, the reader {} ({:?}): {}",
                char::from(theirs),
                char::from(ours),
                check_any(stream),
                stream.escape_ascii(),
            ));
        }
    }
    let shown = &differences[..differences.len().min(10)];
    assert!(
        differences.is_empty(),
        "{} differ\n{}",
        differences.len(),
        shown.join("\n")
    );
    counts
}

fn real_streams(oracle: &mut Oracle) -> Vec<Vec<u8>> {
    let streams = Oracle::byte_strings(&oracle.ask(json!({ "do": "streams" }))["streams"]);
    assert!(streams.len() > 40);
    streams
}

fn rng() -> TestRng {
    TestRng::from_seed(RngAlgorithm::ChaCha, b"kidafs: the same damage each run")
}

/// A stream with one kind of damage.
fn mutate(stream: &[u8], rng: &mut TestRng) -> Vec<u8> {
    // Type codes, with and without the flag, and bytes that are lengths or numbers.
    const TELLING: &[u8] =
        b"0NFTS.iIfgxyltuaAzZ()[]<>{:crs\xe3\xa9\xda\xfa\xdb\xbc\xbe\xfb\x00\x01\x02\x7f\x80\xff";
    let mut bytes = stream.to_vec();
    let mut below = |limit: usize| rng.next_u32() as usize % limit.max(1);
    let at = below(bytes.len());
    match below(8) {
        0 => bytes.truncate(at),
        1 => bytes[at] = below(256) as u8,
        2 | 3 => bytes[at] = TELLING[below(TELLING.len())],
        4 => bytes.insert(at, TELLING[below(TELLING.len())]),
        5 => {
            let end = (at + 1 + below(8)).min(bytes.len());
            bytes.drain(at..end);
        }
        6 => {
            // A piece of the stream at another place of it.
            let from = below(bytes.len());
            let piece = bytes[from..(from + 1 + below(30)).min(bytes.len())].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            for _ in 0..=below(4) {
                let at = below(bytes.len());
                bytes[at] = TELLING[below(TELLING.len())];
            }
        }
    }
    bytes
}

#[test]
fn real_streams_are_accepted() {
    let mut oracle = Oracle::start();
    let streams = real_streams(&mut oracle);
    let [accepted, ..] = compare(&mut oracle, &streams);
    assert_eq!(accepted, streams.len());
}

#[test]
fn a_truncated_stream_is_rejected_wherever_it_is_cut() {
    let mut oracle = Oracle::start();
    let streams = real_streams(&mut oracle);
    let smallest = streams
        .iter()
        .filter(|stream| stream.len() > 200)
        .min_by_key(|s| s.len());
    let stream = smallest.unwrap();
    let cuts: Vec<_> = (0..stream.len())
        .map(|end| stream[..end].to_vec())
        .collect();
    let [accepted, rejected, died] = compare(&mut oracle, &cuts);
    assert_eq!((accepted, rejected, died), (0, stream.len(), 0));
}

#[test]
fn damaged_streams_are_judged_as_the_interpreter_judges_them() {
    let mut oracle = Oracle::start();
    let streams = real_streams(&mut oracle);
    let mut rng = rng();
    let mutants: Vec<_> = streams
        .iter()
        .flat_map(|stream| std::iter::repeat_n(stream, MUTANTS))
        .map(|stream| mutate(stream, &mut rng))
        .collect();
    let [accepted, rejected, died] = compare(&mut oracle, &mutants);
    println!(
        "{} damaged streams: {accepted} accepted, {rejected} rejected, {died} undefined",
        mutants.len()
    );
    // The damage is neither always fatal nor ever harmless, and the crashes are few.
    assert!(accepted > 500 && rejected > 2000 && died < mutants.len() / 50);
}

/// Streams made of telling bytes alone reach what damage to real ones seldom does: containers of all
/// kinds within each other, references to each, no object where one must be.
#[test]
fn streams_made_of_type_codes_are_judged_as_the_interpreter_judges_them() {
    const PIECES: &[&[u8]] = &[
        b"N",
        b"0",
        b"T",
        b"\xe9\x01\0\0\0",
        b"z\x01x",
        b"\xda\x01y",
        b"s\0\0\0\0",
        b")\0",
        b")\x01",
        b")\x02",
        b"\xa9\x01",
        b"\xa9\x02",
        b"[\x01\0\0\0",
        b"\xdb\x02\0\0\0",
        b"<\x01\0\0\0",
        b"<\x02\0\0\0",
        b"\xbc\x01\0\0\0",
        b">\0\0\0\0",
        b">\x01\0\0\0",
        b"\xbe\0\0\0\0",
        b"\xbe\x02\0\0\0",
        b"{",
        b"\xfb",
        b":",
        b"\xba",
        b"r\0\0\0\0",
        b"r\x01\0\0\0",
        b"r\x02\0\0\0",
        b"r\x03\0\0\0",
        b"\xf2\0\0\0\0",
        b"f\x031e5",
        b"f\x02 1",
        b"l\x01\0\0\0\x01\0",
        b"l\0\0\0\0",
        b"u\x03\0\0\0\xed\xa0\x80",
        b"u\x02\0\0\0\xc3\xbc",
        b"?",
    ];
    let mut rng = rng();
    let mut streams = Vec::new();
    for _ in 0..6000 {
        let pieces = 2 + rng.next_u32() as usize % 9;
        let random = |_| PIECES[rng.next_u32() as usize % PIECES.len()];
        let mut stream = (0..pieces).map(random).collect::<Vec<_>>().concat();
        // So that what is well-formed so far is complete.
        stream.extend([b'N'; 4]);
        stream.extend([b'0'; 8]);
        streams.push(stream);
    }
    let mut oracle = Oracle::start();
    let [accepted, rejected, died] = compare(&mut oracle, &streams);
    println!(
        "{} streams: {accepted} accepted, {rejected} rejected, {died} undefined",
        streams.len()
    );
    assert!(accepted > 300 && rejected > 300);
}

#[test]
fn nesting_is_limited_where_the_interpreter_limits_it() {
    let mut streams = Vec::new();
    for depth in [10, 1998, 1999, 2000, 2001, 5000] {
        for head in [&b"[\x01\0\0\0"[..], b")\x01", b"\xa9\x01", b"{N"] {
            let mut stream = head.repeat(depth);
            stream.push(b'N');
            stream.extend(vec![b'0'; depth]);
            streams.push(stream);
        }
    }
    let mut oracle = Oracle::start();
    let [accepted, rejected, died] = compare(&mut oracle, &streams);
    assert_eq!((accepted, rejected, died), (12, 12, 0));
}

#[test]
fn a_code_object_is_described_as_the_interpreter_sees_it() {
    let mut oracle = Oracle::start();
    let mut streams = real_streams(&mut oracle);
    streams.retain(|stream| check(stream).is_ok());
    let answer = oracle.ask_with(json!({ "do": "describe" }), &Oracle::framed(&streams));
    let theirs = answer["descriptions"].as_array().unwrap();
    assert!(theirs.len() > 20);
    for (stream, theirs) in streams.iter().zip(theirs) {
        let mut ours = serde_json::to_value(describe(stream).unwrap()).unwrap();
        keep_what_the_interpreter_tells(&mut ours);
        assert_eq!(&ours, theirs);
    }
}

fn keep_what_the_interpreter_tells(description: &mut serde_json::Value) {
    let members = description.as_object_mut().unwrap();
    assert_eq!(members["truncated"], false);
    for ours_only in ["constants", "flag_names", "truncated"] {
        members.remove(ours_only);
    }
    for function in members["functions"].as_array_mut().unwrap() {
        keep_what_the_interpreter_tells(function);
    }
}
