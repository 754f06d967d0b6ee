//! UTF-8 as Python serializes it.

/// Where `text` ceases to be UTF-8 in which lone surrogates may stand (Python's error handler
/// `surrogatepass`, which marshal and pickle both read with); `None` if it does not.
pub(super) fn bad_utf8(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Err(error) = std::str::from_utf8(&text[at..]) {
        at += error.valid_up_to();
        match text[at..] {
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..] => at += 3,
            _ => return Some(at),
        }
    }
    None
}

/// The bytes of the path that a text of Python's stands for (`os.fsencode`): UTF-8, in which a lone
/// surrogate from U+DC80 to U+DCFF is the byte 80 to FF that was no UTF-8. `None` if the text is not
/// UTF-8 or has another lone surrogate, which no path has.
pub(super) fn path_bytes(text: &[u8]) -> Option<Vec<u8>> {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Err(error) = std::str::from_utf8(rest) {
        let (good, bad) = rest.split_at(error.valid_up_to());
        let [0xed, second @ 0xb2..=0xb3, third @ 0x80..=0xbf, after @ ..] = bad else {
            return None;
        };
        path.extend_from_slice(good);
        path.push((second & 0x03) << 6 | third & 0x3f);
        rest = after;
    }
    path.extend_from_slice(rest);
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_are_text_and_other_faults_are_not() {
        let cases: [(&[u8], Option<usize>); 9] = [
            (b"", None),
            ("aü€😀".as_bytes(), None),
            (b"a\xed\xa0\x80b\xed\xbf\xbf", None),
            (b"\xed\xa0", Some(0)),
            (b"a\xed\xa0\x80\xed\xa0b", Some(4)),
            (b"\xc0\x80", Some(0)),
            (b"ab\xff", Some(2)),
            (b"\xf4\x90\x80\x80", Some(0)),
            (b"\xe2\x82", Some(0)),
        ];
        for (text, bad) in cases {
            assert_eq!(bad_utf8(text), bad, "{text:?}");
        }
    }

    #[test]
    fn a_path_has_the_bytes_that_python_escaped() {
        assert_eq!(path_bytes("aü".as_bytes()).unwrap(), "aü".as_bytes());
        // '\udc80' and '\udcff'.
        assert_eq!(
            path_bytes(b"x\xed\xb2\x80y\xed\xb3\xbf").unwrap(),
            b"x\x80y\xff"
        );
        assert_eq!(path_bytes(b"\xed\xa0\x80"), None);
        assert_eq!(path_bytes(b"\xff"), None);
    }
}
