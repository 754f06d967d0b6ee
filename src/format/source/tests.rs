use super::*;
use crate::format::hash_source;

fn state(mtime: i64, nanos: u32, content: &[u8], wanted: &Fingerprint) -> SourceState {
    SourceState {
        mtime: Mtime {
            seconds: mtime,
            nanos,
        },
        size: content.len() as u64,
        digests: Some(Digests::of(content, [wanted])),
    }
}

fn matches(fingerprint: &Fingerprint, content: &[u8]) -> bool {
    fingerprint
        .matches(&state(0, 0, content, fingerprint))
        .unwrap()
}

#[test]
fn a_template_is_fresh_in_each_way_in_which_a_loader_may_read_it() {
    let text = "Grüße\n€\n";
    let kida = Fingerprint::sha256(&hash_source(text)[..16]).unwrap();
    let jinja2 = Fingerprint::Sha1(sha1_hex(&[text.as_bytes()]));
    let utf16: Vec<u8> = "\u{feff}Grüße\r\n€\r\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for content in [
        text.as_bytes(),
        "Grüße\r\n€\r\n".as_bytes(),
        "Grüße\r€\r".as_bytes(),
        "\u{feff}Grüße\n€\n".as_bytes(),
        b"Gr\xfc\xdfe\n\x80\n",
        b"Gr\xfc\xdfe\r\n\xa4\r\n",
        &utf16,
    ] {
        assert!(matches(&kida, content), "{content:?}");
        assert!(matches(&jinja2, content), "{content:?}");
    }
    for content in [&b""[..], "Grüsse\n€\n".as_bytes(), b"\xff\xff\xff"] {
        assert!(!matches(&kida, content), "{content:?}");
        assert!(!matches(&jinja2, content), "{content:?}");
    }
}

#[test]
fn a_text_with_the_files_own_line_ends_is_fresh_too() {
    let kida = Fingerprint::sha256(&hash_source("a\r\nb")).unwrap();
    assert!(matches(&kida, b"a\r\nb"));
    assert!(!matches(&kida, b"a\nb"));
}

#[test]
fn without_the_content_nothing_is_said_of_a_hash() {
    let kida = Fingerprint::sha256("0123456789abcdef").unwrap();
    let unread = SourceState {
        mtime: Mtime {
            seconds: 0,
            nanos: 0,
        },
        size: 0,
        digests: None,
    };
    assert!(kida.needs_content());
    assert_eq!(kida.matches(&unread), None);
    let time = Fingerprint::MtimeSize { mtime: 0, size: 0 };
    assert!(!time.needs_content());
    assert_eq!(time.matches(&unread), Some(true));
    let unchecked = Fingerprint::Keyed {
        magic: 3627,
        hash: [0; 8],
        checked: false,
    };
    assert!(!unchecked.needs_content());
    assert_eq!(unchecked.matches(&unread), Some(true));
    assert_eq!(Fingerprint::sha256("0123456"), None);
}

#[test]
fn a_time_is_compared_as_the_interpreter_does() {
    let made = Fingerprint::MtimeSize {
        mtime: 1_764_142_395,
        size: 3,
    };
    let at = |seconds, nanos| made.matches(&state(seconds, nanos, b"abc", &made)).unwrap();
    assert!(at(1_764_142_395, 0));
    assert!(at(1_764_142_395, 999_000_000));
    assert!(at(1_764_142_395 + (1 << 32), 0));
    // The float on the way has no room for the last 100 ns.
    assert!(at(1_764_142_394, 999_999_999));
    assert!(!at(1_764_142_396, 0));
    assert!(!at(1_764_142_394, 0));
}

#[test]
fn a_module_is_fresh_as_long_as_it_is_not_older_than_its_template() {
    let made = Fingerprint::Generated {
        magic: 10,
        mtime: 100,
    };
    let at = |seconds| made.matches(&state(seconds, 999_999_999, b"", &made));
    assert_eq!(
        [99, 100, 101].map(at),
        [Some(true), Some(true), Some(false)]
    );
    let old = Fingerprint::Generated {
        magic: 9,
        mtime: 100,
    };
    assert_eq!(old.matches(&state(1, 0, b"", &old)), Some(false));
}

#[test]
fn the_keyed_hash_is_the_interpreters() {
    // importlib.util.source_hash(b"abc") of 3.10 to 3.13.
    for (magic, hash) in [
        (3439, "435b6a4bbf3d9415"),
        (3495, "c7af82e77c1da4f5"),
        (3531, "a00f5731f8bafd32"),
        (3571, "c9ff551a534790a0"),
    ] {
        let bytes = u64::from_str_radix(hash, 16).unwrap().to_be_bytes();
        let made = Fingerprint::Keyed {
            magic,
            hash: bytes,
            checked: true,
        };
        assert!(matches(&made, b"abc"), "{magic}");
        assert!(!matches(&made, b"abd"), "{magic}");
    }
}

#[test]
fn what_no_file_is_called_is_no_file() {
    assert_eq!(SourceFile::named(b"<template>".to_vec()), None);
    assert_eq!(SourceFile::named(Vec::new()), None);
    assert_eq!(
        SourceFile::named(b"/a/b.html".to_vec()),
        Some(SourceFile::At("/a/b.html".into()))
    );
    assert_eq!(
        SourceFile::named(b"a/b.html".to_vec()),
        Some(SourceFile::Relative("a/b.html".into()))
    );
}
