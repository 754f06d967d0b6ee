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
}
