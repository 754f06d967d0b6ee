use super::*;

fn entry(path: &str) -> PackEntry {
    PackEntry {
        path: path.to_owned(),
        size: 3,
        sha256: "00".repeat(32),
        mtime: 0,
        engine: "kida".to_owned(),
        version: "py314".to_owned(),
        key: "0123456789abcdef".to_owned(),
    }
}

fn manifest(entries: Vec<PackEntry>) -> Manifest {
    Manifest {
        format: FORMAT,
        namespace: "shop".to_owned(),
        epoch: 0,
        created: 1,
        host: "ci".to_owned(),
        tool: "kidafs 0".to_owned(),
        replaces: Vec::new(),
        body: Body {
            size: 10,
            sha256: "00".repeat(32),
            content: 3 * entries.len() as u64,
        },
        entries,
    }
}

fn read(manifest: &Manifest) -> Result<(), Reason> {
    let namespace = "shop".parse().unwrap();
    Manifest::read(&manifest.text(), &namespace, &Engines::default())
        .map(|read| assert_eq!(&read, manifest))
        .map_err(|reject| reject.reason)
}

const NAME: &str = "__kida_py314_page.html_0123456789abcdef.pyc";

#[test]
fn a_path_is_relative_normal_and_an_entrys() {
    assert_eq!(read(&manifest(vec![entry(NAME)])), Ok(()));
    let below = format!("sub/{NAME}");
    assert_eq!(read(&manifest(vec![entry(&below)])), Ok(()));
    let long = format!("__kida_py314_{}_0123456789abcdef.pyc", "x".repeat(300));
    for path in [
        "",
        "/",
        "..",
        "page.html",
        "/etc/passwd",
        &format!("/{NAME}"),
        &format!("../{NAME}"),
        &format!("a/../{NAME}"),
        &format!("./{NAME}"),
        &format!("a//{NAME}"),
        &format!("{NAME}/"),
        &format!(".kidafs/{NAME}"),
        &format!("a/.kidafs/{NAME}"),
        &format!("a\n/{NAME}"),
        &format!("{NAME}.abcdefgh.tmp"),
        &"a/".repeat(600),
        &long,
        // Of another engine than it says.
        "__jinja2_0123456789abcdef0123456789abcdef01234567.cache",
    ] {
        let result = read(&manifest(vec![entry(path)]));
        assert_eq!(result, Err(Reason::BadPath), "{path}");
    }
}

#[test]
fn sizes_have_limits_and_agree() {
    let mut large = entry(NAME);
    large.size = MOST_ENTRY + 1;
    assert_eq!(read(&manifest(vec![large])), Err(Reason::TooLarge));
    let mut huge = entry(NAME);
    huge.size = u64::MAX;
    assert_eq!(read(&manifest(vec![huge])), Err(Reason::TooLarge));
    let other = NAME.replace("page", "other");
    let mut wrong = manifest(vec![entry(NAME), entry(&other)]);
    assert_eq!(read(&wrong), Ok(()));
    wrong.body.content += 1;
    assert_eq!(read(&wrong), Err(Reason::Malformed));
    let mut wrong = manifest(vec![entry(NAME)]);
    wrong.body.size = MOST_BODY + 1;
    assert_eq!(read(&wrong), Err(Reason::TooLarge));
    assert_eq!(read(&manifest(vec![])), Err(Reason::Malformed));
    let twice = manifest(vec![entry(NAME), entry(NAME)]);
    assert_eq!(read(&twice), Err(Reason::Malformed));
}

#[test]
fn a_later_format_and_another_namespace_are_told_from_rubbish() {
    let mut later = manifest(vec![entry(NAME)]);
    later.format = 2;
    assert_eq!(read(&later), Err(Reason::UnknownFormat));
    let mut other = manifest(vec![entry(NAME)]);
    other.namespace = "shop2".to_owned();
    assert_eq!(read(&other), Err(Reason::WrongNamespace));
    let namespace = "shop".parse().unwrap();
    for text in ["", "{}", "[]", "null", "{\"format\":1}", "\u{0}"] {
        let read = Manifest::read(text.as_bytes(), &namespace, &Engines::default());
        assert_eq!(read.map_err(|r| r.reason), Err(Reason::Malformed), "{text}");
    }
}

#[test]
fn a_namespace_is_a_plain_word() {
    for good in ["shop", "shop-2", "0.1_x"] {
        assert!(good.parse::<Namespace>().is_ok(), "{good}");
    }
    let long = "x".repeat(101);
    for bad in ["", ".", "..", "a/b", "a b", "-a", "é", "a\n", &long] {
        assert!(bad.parse::<Namespace>().is_err(), "{bad}");
    }
}

#[test]
fn hex_digits_are_read_as_written() {
    let text = "00ff".repeat(16);
    assert_eq!(hex(&parse_sha256(&text).unwrap()), text);
    assert!(parse_sha256(&text.to_uppercase()).is_none());
    assert!(parse_sha256(&text[1..]).is_none());
}
