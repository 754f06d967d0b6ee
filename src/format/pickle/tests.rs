use proptest::prelude::*;

use super::*;

/// `[1, ('a', 'a'), {'k': None}]` by protocols 0, 2 and 4.
const LIST: [&[u8]; 3] = [
    b"(lp0\nI1\na(Va\np1\ng1\ntp2\na(dp3\nVk\np4\nNsa.",
    b"\x80\x02]q\x00(K\x01X\x01\x00\x00\x00aq\x01h\x01\x86q\x02}q\x03X\x01\x00\x00\x00kq\x04Nse.",
    b"\x80\x04\x95\x17\0\0\0\0\0\0\0]\x94(K\x01\x8c\x01a\x94h\x01\x86\x94}\x94\x8c\x01k\x94Nse.",
];

fn fault(data: &[u8]) -> PickleErrorKind {
    check(data).unwrap_err().kind
}

#[test]
fn a_whole_pickle_is_accepted_and_bytes_after_it_are_ignored() {
    for pickle in LIST {
        assert_eq!(check(pickle), Ok(pickle.len()));
        assert_eq!(check(&[pickle, b"rest"].concat()), Ok(pickle.len()));
    }
}

#[test]
fn a_pickle_cut_anywhere_is_truncated() {
    for pickle in LIST {
        for end in 0..pickle.len() {
            let cut = PickleError {
                offset: end,
                kind: Kind::Truncated,
            };
            assert_eq!(check(&pickle[..end]), Err(cut), "cut at {end}");
        }
    }
}

#[test]
fn each_fault_has_its_name_and_its_place() {
    let cases: [(&[u8], usize, PickleErrorKind); 20] = [
        (b"\x80\x06N.", 0, Kind::Protocol(6)),
        (b"N?.", 1, Kind::UnknownOpcode(b'?')),
        (b"T\xff\xff\xff\xff.", 0, Kind::Length),
        (b"I\n.", 0, Kind::EmptyLine),
        (b"\x8c\x01\xff.", 0, Kind::Utf8),
        (b".", 0, Kind::Underflow),
        (b"N(.", 2, Kind::Underflow),
        (b"N\x86.", 1, Kind::Underflow),
        (b"N(\x85.", 2, Kind::Underflow),
        (b"(o.", 1, Kind::Underflow),
        (b"(Ne.", 2, Kind::Underflow),
        (b"]s.", 1, Kind::Underflow),
        (b"t.", 0, Kind::NoMark),
        (b"(Nd.", 2, Kind::OddItems),
        (b"}(Nu.", 3, Kind::OddItems),
        (b"h\x00.", 0, Kind::Memo(0)),
        (b"Nq\x01h\x00.", 3, Kind::Memo(0)),
        (b"q\x00.", 0, Kind::Underflow),
        (b"Px\n.", 0, Kind::External),
        (b"\x97.", 0, Kind::External),
    ];
    for (pickle, offset, kind) in cases {
        assert_eq!(
            check(pickle),
            Err(PickleError { offset, kind }),
            "{pickle:?}"
        );
    }
}

#[test]
fn the_memo_keeps_what_was_put_in_any_order() {
    assert_eq!(check(b"Nq\x05h\x05."), Ok(6));
    assert_eq!(check(b"Nq\x01Nq\x00h\x00h\x01."), Ok(11));
    // A memoized object takes the number of those before it.
    assert_eq!(check(b"Nq\x05N\x94h\x01."), Ok(8));
    assert_eq!(fault(b"Nq\x05N\x94h\x02."), Kind::Memo(2));
    assert_eq!(fault(b"Nq\x05Nq\x05N\x94h\x02."), Kind::Memo(2));
}

#[test]
fn absurd_lengths_take_no_memory() {
    for pickle in [
        &b"B\xff\xff\xff\xff."[..],
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xffN.",
    ] {
        assert_eq!(fault(pickle), Kind::Truncated);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_judged_without_a_panic(
        bytes in prop::collection::vec(
            prop_oneof![
                4 => prop::sample::select(b"(.012FINJKLMRSTUVXabcdehijlopqrstu})]G\n".to_vec()),
                2 => 0x80..0x99u8,
                1 => any::<u8>(),
            ],
            0..80,
        )
    ) {
        if let Ok(len) = check(&bytes) {
            prop_assert!(check(&bytes[..len]).is_ok());
            prop_assert!(check(&bytes[..len - 1]).is_err());
        }
    }
}

#[test]
fn what_the_object_is_can_be_told() {
    let top = |data: &[u8]| read(data).unwrap().top;
    for (data, expected) in [
        (&b"]."[..], Top::List),
        (b"\x80\x05]\x94(K\x01K\x02e.", Top::List),
        (b"\x80\x05]\x94](K\x01K\x02ea.", Top::List),
        (b"(lp0\nI1\na.", Top::List),
        (b"}.", Top::Plain),
        (b"N.", Top::Plain),
        (b"]\x85.", Top::Plain),
        (b"(]]t.", Top::Plain),
        (b"]0N.", Top::Plain),
        (b"cm\nC\n.", Top::Plain),
        (b"cm\nC\n)R.", Top::Object),
        (b"\x8c\x01m\x8c\x01C\x93)\x81}b.", Top::Object),
        (b"cm\nC\n)R(K\x01e.", Top::List),
        (b"]\x940h\x00.", Top::Unknown),
        (b"N].", Top::Unknown),
    ] {
        assert_eq!(top(data), expected, "{data:?}");
    }
}
