use super::*;

fn entry(number: u32) -> PackEntry {
    PackEntry {
        path: format!("__kida_py314_page.html_{number:016x}.pyc"),
        size: 0,
        sha256: String::new(),
        mtime: 0,
        engine: "kida".to_owned(),
        version: "py314".to_owned(),
        key: format!("{number:016x}"),
    }
}

fn maker() -> Maker {
    Maker {
        namespace: "shop".parse().unwrap(),
        epoch: 0,
        host: "ci".to_owned(),
    }
}

fn pack(contents: &[&[u8]]) -> Pack {
    let mut builder = Builder::new().unwrap();
    for (number, content) in (0..).zip(contents) {
        builder.add(entry(number), content).unwrap();
    }
    builder
        .finish(&maker(), Vec::new(), SystemTime::now(), None)
        .unwrap()
}

/// What is handed out of `body` under `manifest`.
fn read(manifest: &Manifest, body: &[u8]) -> (Vec<Vec<u8>>, Option<Reason>) {
    let mut contents = Vec::new();
    let result = read_body(
        manifest,
        body,
        |_| true,
        |_, content| {
            contents.push(content.unwrap_or_default().to_owned());
            true
        },
    );
    (contents, result.err().map(|reject| reject.reason))
}

#[test]
fn what_was_put_in_comes_out_whole_or_in_part() {
    let contents: [&[u8]; 3] = [b"first", b"", b"third"];
    let pack = pack(&contents);
    assert_eq!(pack.id, PackId::of(&pack.parsed.text()));
    let (read_back, error) = read(&pack.parsed, &pack.body);
    assert_eq!(
        (read_back, error),
        (contents.map(<[u8]>::to_vec).into(), None)
    );
    let mut some = Vec::new();
    read_body(
        &pack.parsed,
        &pack.body,
        |index| index == 2,
        |index, content| {
            some.push((index, content.unwrap().to_owned()));
            true
        },
    )
    .unwrap();
    assert_eq!(some, [(2, b"third".to_vec())]);
}

#[test]
fn no_byte_of_a_body_can_be_changed() {
    let pack = pack(&[b"first", b"second, which is longer"]);
    for at in 0..pack.body.len() {
        let mut body = pack.body.clone();
        body[at] ^= 0x10;
        assert_eq!(
            read(&pack.parsed, &body),
            (vec![], Some(Reason::BadBody)),
            "byte {at}"
        );
        assert_eq!(
            read(&pack.parsed, &pack.body[..at]),
            (vec![], Some(Reason::BadBody))
        );
    }
}

#[test]
fn a_body_that_is_more_or_less_than_it_says_ends_there() {
    // Signed by a key that is trusted and yet wrong: the hash of the body fits, its content does not.
    let honest = pack(&[&[7; 1000]]);
    let mut liar = honest.parsed.clone();
    liar.entries[0].size = 10;
    let (contents, error) = read(&liar, &honest.body);
    assert_eq!(error, Some(Reason::BadBody));
    assert!(contents.iter().all(|content| content.is_empty()));
    liar.entries[0].size = 1001;
    assert_eq!(read(&liar, &honest.body).1, Some(Reason::BadBody));
    // A window of 128 MiB is not reserved for anybody.
    let mut encoder = zstd::Encoder::new(Vec::new(), 19).unwrap();
    encoder.window_log(27).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.write_all(&[7; 100]).unwrap();
    let wide = encoder.finish().unwrap();
    let mut manifest = pack(&[&[7; 100]]).parsed;
    manifest.body.size = wide.len() as u64;
    manifest.body.sha256 = hex(&sha256(&wide));
    assert_eq!(read(&manifest, &wide), (vec![], Some(Reason::BadBody)));
}

#[test]
fn an_entry_that_is_not_what_it_says_is_told_apart_from_the_rest() {
    let honest = pack(&[b"first", b"second"]);
    let mut liar = honest.parsed.clone();
    liar.entries[0].sha256 = hex(&sha256(b"other"));
    let mut found = Vec::new();
    read_body(
        &liar,
        &honest.body,
        |_| true,
        |index, content| {
            found.push((index, content.map(<[u8]>::to_vec).map_err(|r| r.reason)));
            true
        },
    )
    .unwrap();
    assert_eq!(
        found,
        [(0, Err(Reason::BadEntry)), (1, Ok(b"second".to_vec()))]
    );
}
