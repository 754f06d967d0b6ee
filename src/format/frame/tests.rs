use proptest::prelude::*;

use super::*;

const CODE: &[u8] = b"\xe3code";

fn entry(format: Format) -> Entry<'static> {
    Entry {
        format,
        code: CODE,
        precomputed: None,
        warnings: (format == Format::V4).then_some(b"[]"),
        ast: None,
    }
}

#[test]
fn the_bytes_are_those_of_the_table() {
    assert_eq!(entry(Format::Legacy).encode().unwrap(), CODE);
    assert_eq!(
        Entry {
            ast: Some(b"AST"),
            ..entry(Format::V2)
        }
        .encode()
        .unwrap(),
        b"\0KDA\x05\0\0\0\xe3codeAST"
    );
    assert_eq!(
        entry(Format::V3).encode().unwrap(),
        b"\x01KDA\x05\0\0\0\xe3code\0\0\0\0"
    );
    let full = Entry {
        precomputed: Some(b"PC"),
        ast: Some(b"AST"),
        ..entry(Format::V4)
    };
    let bytes = b"\x02KDA\x05\0\0\0\xe3code\x02\0\0\0PC\x02\0\0\0[]AST";
    assert_eq!(full.encode().unwrap(), bytes);
    assert_eq!(Entry::parse(bytes).unwrap(), full);
}

#[test]
fn a_cut_at_any_byte_names_its_section_or_gives_a_shorter_ast() {
    let full = Entry {
        precomputed: Some(b"PC"),
        ast: Some(b"AST"),
        ..entry(Format::V4)
    };
    let bytes = full.encode().unwrap();
    let head = bytes.len() - 3;
    assert_eq!(Entry::parse(&[]), Err(FrameError::Empty));
    for end in 1..head {
        let Err(FrameError::Truncated {
            section,
            offset,
            needed,
            available,
        }) = Entry::parse(&bytes[..end])
        else {
            panic!("cut at {end}");
        };
        let expected = match end {
            1..4 => Section::Magic,
            4..13 => Section::Code,
            13..19 => Section::Precomputed,
            _ => Section::Warnings,
        };
        assert_eq!(section, expected, "cut at {end}");
        assert_eq!(offset + available, end);
        assert!(available < needed);
    }
    for end in head..bytes.len() {
        let cut = Entry::parse(&bytes[..end]).unwrap();
        assert_eq!(cut.ast.unwrap_or_default(), &b"AST"[..end - head]);
    }
}

#[test]
fn the_first_four_bytes_tell_the_format() {
    for format in [Format::Legacy, Format::V2, Format::V3, Format::V4] {
        let bytes = entry(format).encode().unwrap();
        assert_eq!(Format::of_head(&bytes), Some(format));
        assert_eq!(Format::of_head(&bytes[..Format::HEAD_LEN]), Some(format));
    }
    for head in [&b""[..], b"\0", b"\0KD", b"\x03KDA", b"GIF8"] {
        assert_eq!(Format::of_head(head), None, "{head:?}");
    }
}

#[test]
fn unknown_beginnings_are_refused() {
    assert_eq!(Entry::parse(b"\x03KDA"), Err(FrameError::UnknownFormat(3)));
    assert_eq!(Entry::parse(b"\0KDB"), Err(FrameError::UnknownMagic(0)));
    assert_eq!(Entry::parse(b"N"), Err(FrameError::UnknownMagic(b'N')));
}

#[test]
fn a_v4_entry_has_warnings() {
    let bytes = b"\x02KDA\x01\0\0\0c\0\0\0\0\0\0\0\0AST";
    assert_eq!(
        Entry::parse(bytes),
        Err(FrameError::NoWarnings { offset: 13 })
    );
}

#[test]
fn sections_that_do_not_fit_are_not_encoded() {
    let misplaced = |entry: Entry<'_>| match entry.encode() {
        Err(FrameError::Misplaced { section, .. }) => Some(section),
        _ => None,
    };
    let legacy = entry(Format::Legacy);
    assert_eq!(
        misplaced(Entry {
            code: b"N",
            ..legacy
        }),
        Some(Section::Code)
    );
    assert_eq!(
        misplaced(Entry {
            ast: Some(b"x"),
            ..legacy
        }),
        Some(Section::Ast)
    );
    let v2 = entry(Format::V2);
    assert_eq!(
        misplaced(Entry {
            precomputed: Some(b"x"),
            ..v2
        }),
        Some(Section::Precomputed)
    );
    assert_eq!(
        misplaced(Entry {
            ast: Some(b""),
            ..v2
        }),
        Some(Section::Ast)
    );
    assert_eq!(
        misplaced(Entry {
            warnings: Some(b"[]"),
            ..v2
        }),
        Some(Section::Warnings)
    );
    assert_eq!(
        misplaced(Entry {
            warnings: None,
            ..entry(Format::V4)
        }),
        Some(Section::Warnings)
    );
}

#[test]
fn a_length_beyond_32_bits_is_an_error() {
    assert_eq!(len_field(Section::Code, u32::MAX as usize), Ok(u32::MAX));
    let len = u32::MAX as usize + 1;
    assert_eq!(
        len_field(Section::Code, len),
        Err(FrameError::TooLong {
            section: Section::Code,
            len
        })
    );
}

proptest! {
    #[test]
    fn what_is_encoded_is_parsed_back(
        format in prop::sample::select(vec![Format::V2, Format::V3, Format::V4]),
        code in any::<Vec<u8>>(),
        precomputed in prop::option::of(prop::collection::vec(any::<u8>(), 1..50)),
        ast in prop::option::of(prop::collection::vec(any::<u8>(), 1..50)),
    ) {
        let entry = Entry {
            format,
            code: &code,
            precomputed: precomputed.as_deref().filter(|_| format >= Format::V3),
            warnings: (format == Format::V4).then_some(b"[]"),
            ast: ast.as_deref(),
        };
        let bytes = entry.encode().unwrap();
        prop_assert_eq!(Entry::parse(&bytes).unwrap(), entry);
    }

    #[test]
    fn any_bytes_are_parsed_or_refused_and_encode_again_to_themselves(
        magic in prop::sample::select(vec![&b""[..], b"\0KDA", b"\x01KDA", b"\x02KDA", b"\xe3"]),
        tail in prop::collection::vec(prop_oneof![Just(0u8), 0..9u8, any::<u8>()], 0..80),
    ) {
        let bytes = [magic, &tail].concat();
        if let Ok(entry) = Entry::parse(&bytes) {
            prop_assert_eq!(entry.encode().unwrap(), bytes);
        }
    }
}
