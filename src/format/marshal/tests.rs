use proptest::prelude::*;

use super::*;

fn fault(stream: &[u8]) -> MarshalErrorKind {
    check_any(stream).unwrap_err().kind
}

/// A code object without arguments, its fields replaceable by name.
pub(super) fn code_with(replace: &[(&str, &[u8])]) -> Vec<u8> {
    let counts: [(&str, &[u8]); 5] = [
        ("args", &[0; 4]),
        ("positional-only", &[0; 4]),
        ("keyword-only", &[0; 4]),
        ("stack", &[1, 0, 0, 0]),
        ("flags", &[0; 4]),
    ];
    let rest: [(&str, &[u8]); 11] = [
        ("bytecode", b"s\x02\0\0\0\x95\0"),
        ("constants", b")\x01N"),
        ("names", b")\x01z\x05print"),
        ("locals", b")\x01z\x01x"),
        ("kinds", b"s\x01\0\0\0\x20"),
        ("file", b"z\x06t.html"),
        ("name", b"z\x06render"),
        ("qualname", b"z\x0bouter.inner"),
        ("first line", &[7, 0, 0, 0]),
        ("lines", b"s\0\0\0\0"),
        ("exceptions", b"s\0\0\0\0"),
    ];
    let mut stream = b"\xe3".to_vec();
    for (name, usual) in counts.into_iter().chain(rest) {
        let given = replace.iter().find(|(field, _)| *field == name);
        stream.extend_from_slice(given.map_or(usual, |(_, bytes)| bytes));
    }
    stream
}

#[test]
fn a_code_object_is_accepted_and_bytes_after_it_are_ignored() {
    let mut stream = code_with(&[]);
    check(&stream).unwrap();
    let len = stream.len();
    stream.extend_from_slice(b"anything");
    check(&stream).unwrap();
    assert_eq!(check_any(&stream), Ok(Checked { is_code: true, len }));
}

#[test]
fn another_object_is_not_a_code_object() {
    assert_eq!(
        check_any(b"N"),
        Ok(Checked {
            is_code: false,
            len: 1
        })
    );
    assert_eq!(check(b"N").unwrap_err().kind, MarshalErrorKind::NotCode);
}

#[test]
fn a_code_object_cut_anywhere_is_truncated() {
    let stream = code_with(&[]);
    for end in 0..stream.len() {
        let error = check(&stream[..end]).unwrap_err();
        assert_eq!(error.kind, MarshalErrorKind::Truncated, "cut at {end}");
        assert!(error.offset <= end);
    }
}

#[test]
fn each_field_of_a_code_object_is_checked() {
    let cases: [(&str, &[u8], CodeFault); 20] = [
        ("args", &[0xff; 4], CodeFault::Counts),
        ("positional-only", &[1, 0, 0, 0], CodeFault::Counts),
        ("keyword-only", &[0xff; 4], CodeFault::Counts),
        ("stack", &[0xff; 4], CodeFault::Counts),
        ("flags", &[0, 0, 0, 0x80], CodeFault::Counts),
        ("bytecode", b"s\x01\0\0\0\x95", CodeFault::Bytecode),
        ("bytecode", b"N", CodeFault::Bytecode),
        ("constants", b"N", CodeFault::Constants),
        ("constants", b"\xa9\x01r\x01\0\0\0", CodeFault::Constants),
        ("names", b")\x01N", CodeFault::Names),
        ("names", b"[\0\0\0\0", CodeFault::Names),
        ("locals", b")\x01N", CodeFault::Locals),
        ("locals", b")\0", CodeFault::Locals),
        ("kinds", b"N", CodeFault::Locals),
        ("args", &[2, 0, 0, 0], CodeFault::TooFewLocals),
        (
            "keyword-only",
            &[0xff, 0xff, 0xff, 0x7f],
            CodeFault::TooFewLocals,
        ),
        ("file", b"N", CodeFault::Strings),
        ("qualname", b"s\0\0\0\0", CodeFault::Strings),
        ("lines", b"N", CodeFault::Tables),
        ("exceptions", b"z\0", CodeFault::Tables),
    ];
    for (field, bytes, expected) in cases {
        let kind = fault(&code_with(&[(field, bytes)]));
        assert_eq!(kind, MarshalErrorKind::Code(expected), "{field}: {bytes:?}");
    }
}

#[test]
fn each_fault_has_its_name_and_its_place() {
    let cases: [(&[u8], usize, MarshalErrorKind); 16] = [
        (b"", 0, MarshalErrorKind::Truncated),
        (b")\x01?", 2, MarshalErrorKind::UnknownType(b'?')),
        (b"s\xff\xff\xff\xff", 5, MarshalErrorKind::Length(-1)),
        (b"l\0\0\0\x80", 5, MarshalErrorKind::Length(i32::MIN)),
        (b"l\x01\0\0\0\0\x80", 5, MarshalErrorKind::Digit),
        (b"l\x02\0\0\0\x01\0\0\0", 9, MarshalErrorKind::Unnormalized),
        (b"f\x021x", 1, MarshalErrorKind::Float),
        (b"u\x02\0\0\0a\xff", 6, MarshalErrorKind::Utf8),
        (b"r\0\0\0\0", 0, MarshalErrorKind::Reference(0)),
        (
            b"(\x02\0\0\0\xcer\0\0\0\0",
            6,
            MarshalErrorKind::Reference(0),
        ),
        (
            b"\xbe\x01\0\0\0r\0\0\0\0",
            5,
            MarshalErrorKind::Reference(0),
        ),
        (
            b"\xa9\x01<\x01\0\0\0r\0\0\0\0",
            12,
            MarshalErrorKind::IncompleteTuple,
        ),
        (b"<\x01\0\0\0[\0\0\0\0", 10, MarshalErrorKind::Unhashable),
        (b"{)\x01[\0\0\0\0N0", 9, MarshalErrorKind::Unhashable),
        (b"0", 1, MarshalErrorKind::Null),
        (b")\x010", 3, MarshalErrorKind::Null),
    ];
    for (stream, offset, kind) in cases {
        let error = check_any(stream).unwrap_err();
        assert_eq!(error, MarshalError { offset, kind }, "{stream:?}");
    }
}

#[test]
fn two_thousand_objects_within_each_other_are_the_limit() {
    let nested = |depth: usize| [&b"[\x01\0\0\0".repeat(depth)[..], b"N"].concat();
    assert!(check_any(&nested(1999)).is_ok());
    assert_eq!(fault(&nested(2000)), MarshalErrorKind::TooDeep);
}

#[test]
fn a_thread_with_a_small_stack_reads_the_deepest_stream() {
    let deep = |head: &[u8]| [&head.repeat(1999)[..], b"N", &[b'0'; 1999]].concat();
    let deep_code = |_| {
        let mut stream = code_with(&[]);
        for _ in 0..600 {
            stream = code_with(&[("constants", &[&b")\x01"[..], &stream].concat())]);
        }
        stream
    };
    let run = move || {
        for head in [&b"[\x01\0\0\0"[..], b")\x01", b"{N"] {
            check_any(&deep(head)).unwrap();
            let constants = [&b")\x01"[..], &deep(head)[..]].concat();
            // Too deep by the code object itself and its tuple.
            assert!(check(&code_with(&[("constants", &constants)])).is_err());
        }
        let info = describe(&deep_code(())).unwrap();
        assert!(info.truncated);
    };
    let thread = std::thread::Builder::new().stack_size(256 * 1024);
    thread.spawn(run).unwrap().join().unwrap();
}

#[test]
fn absurd_lengths_take_no_memory() {
    for head in [b'(', b'[', b'<', b'>', b's', b'u', b'a', b'l'] {
        let stream = [head, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(fault(&stream), MarshalErrorKind::Truncated);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_judged_without_a_panic(
        bytes in prop::collection::vec(
            prop_oneof![
                4 => prop::sample::select(b"0NFTS.iIfgxyltuaAzZ()[]<>{:crs".to_vec()),
                2 => prop::sample::select(vec![0xe3u8, 0xa9, 0xdb, 0xbe, 0xfb, 0xba]),
                6 => 0..5u8,
                1 => any::<u8>(),
            ],
            0..120,
        )
    ) {
        let accepted = check_any(&bytes);
        prop_assert_eq!(describe(&bytes).is_ok(), accepted.is_ok_and(|checked| checked.is_code));
        if let Ok(checked) = accepted {
            // The bytes that belong to the object are enough, and one fewer is not.
            prop_assert!(check_any(&bytes[..checked.len]).is_ok());
            prop_assert!(check_any(&bytes[..checked.len - 1]).is_err());
        }
    }

    #[test]
    fn a_damaged_code_object_is_described_or_refused(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        constant in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let constants = [&b"\xa9\x02\xe9\x07\0\0\0"[..], &constant].concat();
        let mut stream = code_with(&[("constants", &constants)]);
        let at = at.index(stream.len());
        stream[at] = byte;
        if let Ok(info) = describe(&stream) {
            prop_assert!(info.constants.iter().all(|text| text.chars().count() <= 201));
        }
    }
}
