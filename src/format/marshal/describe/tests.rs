use super::super::tests::code_with;
use super::*;

fn constants(members: &[u8], count: u8) -> Vec<String> {
    let tuple = [&[b')', count], members].concat();
    describe(&code_with(&[("constants", &tuple)]))
        .unwrap()
        .constants
}

#[test]
fn a_code_object_is_described() {
    let info = describe(&code_with(&[("flags", &[0x3, 0, 0, 0])])).unwrap();
    assert_eq!(info.name, "render");
    assert_eq!(info.qualname, "outer.inner");
    assert_eq!(info.filename, "t.html");
    assert_eq!((info.first_line, info.stack_size, info.code_len), (7, 1, 2));
    assert_eq!(info.flag_names, ["OPTIMIZED", "NEWLOCALS"]);
    assert_eq!(info.constants, ["None"]);
    assert_eq!(info.names, ["print"]);
    assert_eq!(info.locals, ["x"]);
    assert!(info.cells.is_empty() && info.free.is_empty() && info.functions.is_empty());
    assert!(!info.truncated);
}

#[test]
fn nested_functions_are_described_where_they_stand() {
    let inner = code_with(&[("name", b"z\x05inner")]);
    // The inner function takes the first reference number, the outer code object's being 0.
    let tuple = [&b")\x02"[..], &inner, b"r\x01\0\0\0"].concat();
    let info = describe(&code_with(&[("constants", &tuple)])).unwrap();
    assert_eq!(info.constants, ["<code inner>", "<code inner>"]);
    assert_eq!(info.functions.len(), 1);
    assert_eq!(info.functions[0].name, "inner");
}

#[test]
fn constants_look_like_pythons() {
    let cases: [(&[u8], &str); 18] = [
        (b"T", "True"),
        (b".", "Ellipsis"),
        (b"i\xff\xff\xff\xff", "-1"),
        (b"l\xfe\xff\xff\xff\x01\0\x01\0", "-32769"),
        (b"g\0\0\0\0\0\0\xf8\x3f", "1.5"),
        (b"f\x011", "1.0"),
        (b"y\0\0\0\0\0\0\xf0\x3f\0\0\0\0\0\0\0\xc0", "(1.0-2.0j)"),
        (b"z\x04it's", "'it\\'s'"),
        (b"u\x03\0\0\0\xe2\x82\xac", "'€'"),
        (b"s\x03\0\0\0a\0b", "b'a\\x00b'"),
        (b")\0", "()"),
        (b")\x01N", "(None,)"),
        (b"(\x02\0\0\0TF", "(True, False)"),
        (b"[\x01\0\0\0i\x01\0\0\0", "[1]"),
        (b">\x01\0\0\0z\x01a", "frozenset({'a'})"),
        (b"<\0\0\0\0", "set()"),
        (b"{z\x01ki\x01\0\0\0z\x01lN0", "{'k': 1, 'l': None}"),
        (b":i\x01\0\0\0NN", "slice(1, None, None)"),
    ];
    for (stream, expected) in cases {
        assert_eq!(constants(stream, 1), [expected]);
    }
    let huge = [&b"l\x09\0\0\0"[..], &[1, 0].repeat(9)].concat();
    assert_eq!(constants(&huge, 1), ["<int of 135 bits>"]);
}

#[test]
fn long_and_endless_constants_are_cut() {
    let long = [&b"u\xe8\x03\0\0"[..], &[b'x'; 1000]].concat();
    let [text] = &constants(&long, 1)[..] else {
        panic!()
    };
    assert!(
        text.chars().count() <= MAX_TEXT + 1 && text.ends_with('…'),
        "{text}"
    );
    // A list within itself.
    let [text] = &constants(b"\xdb\x02\0\0\0r\x01\0\0\0r\x01\0\0\0", 1)[..] else {
        panic!()
    };
    assert!(text.chars().count() <= MAX_TEXT + 1, "{text}");
}

#[test]
fn a_description_is_bounded() {
    // Lists that contain the one before ten times: 10^50 members to a naive reader.
    let mut tuple = b"(\x33\0\0\0\xdb\0\0\0\0".to_vec();
    for level in 1..=50u32 {
        tuple.extend(b"\xdb\x0a\0\0\0");
        for _ in 0..10 {
            tuple.push(b'r');
            tuple.extend(level.to_le_bytes());
        }
    }
    let info = describe(&code_with(&[("constants", &tuple)])).unwrap();
    assert_eq!(info.constants.len(), 51);
    assert!(
        info.constants
            .iter()
            .all(|text| text.chars().count() <= MAX_TEXT + 1)
    );

    let mut tuple = b"(\x20\x4e\0\0".to_vec();
    tuple.extend(vec![b'N'; 20_000]);
    let info = describe(&code_with(&[("constants", &tuple)])).unwrap();
    assert_eq!(info.constants.len(), MAX_ITEMS);
    assert!(info.truncated);
}
