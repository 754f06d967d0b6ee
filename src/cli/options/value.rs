//! Values as people write them, and back: sizes, times, shares, words.
//!
//! The text that a `show_…` function gives is read back to exactly the same value, because the
//! daemon in the background gets its options as arguments.

use std::ffi::OsStr;
use std::time::Duration;

use bytesize::ByteSize;

use crate::config::KeepFree;

/// What is wrong with a value, as the end of a sentence that begins with the value.
pub(super) type Problem = String;

/// The value as text.
pub(super) fn text(value: &OsStr) -> Result<&str, Problem> {
    value
        .to_str()
        .ok_or_else(|| "is not UTF-8 text; write it in plain characters".to_owned())
}

const SIZE_HELP: &str = "is not a size; write a number and a unit, such as 64MiB, 1GiB or 500MB";
const TIME_HELP: &str = "is not a time; write a number and a unit, such as 60s, 1h or 30d";

/// The largest size: files have no offsets beyond it.
const MAX_SIZE: u64 = i64::MAX as u64;

/// Bytes. A bare number is a number of bytes.
pub(super) fn size(text: &str) -> Result<u64, Problem> {
    let text = text.trim();
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(SIZE_HELP.to_owned());
    }
    let bytes = text
        .parse::<ByteSize>()
        .map_err(|_| SIZE_HELP.to_owned())?
        .as_u64();
    // The parser gives the largest number for everything beyond it.
    if bytes > MAX_SIZE {
        return Err("is larger than any file can be; write a size below 8EiB".to_owned());
    }
    Ok(bytes)
}

/// The size in its largest whole unit.
pub(super) fn show_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    UNITS
        .iter()
        .find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit))
        .map_or_else(
            || format!("{bytes}B"),
            |(name, unit)| format!("{}{name}", bytes / unit),
        )
}

/// Texts with a comma between them.
pub(super) fn list(text: &str) -> Vec<String> {
    let parts = text.split(',').map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A file's path from the root: whoever uses it runs elsewhere.
pub(super) fn from_here(text: &OsStr) -> Result<std::path::PathBuf, Problem> {
    std::path::absolute(text)
        .map_err(|error| format!("cannot be made absolute ({error}); write it from /"))
}

/// A time. Zero may be written without a unit.
pub(super) fn time(text: &str) -> Result<Duration, Problem> {
    humantime::parse_duration(text.trim()).map_err(|_| TIME_HELP.to_owned())
}

/// The time in its largest whole unit.
pub(super) fn show_time(time: Duration) -> String {
    const UNITS: [(&str, u128); 7] = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    let nanos = time.as_nanos();
    UNITS
        .iter()
        .find(|(_, unit)| nanos > 0 && nanos.is_multiple_of(*unit))
        .map_or_else(
            || "0s".to_owned(),
            |(name, unit)| format!("{}{name}", nanos / unit),
        )
}

/// A time, or `off`.
pub(super) fn age(text: &str) -> Result<Option<Duration>, Problem> {
    if text.trim() == "off" {
        return Ok(None);
    }
    match time(text) {
        Ok(Duration::ZERO) => {
            Err("would remove everything at once; write off to disable the rule".to_owned())
        }
        Ok(age) => Ok(Some(age)),
        Err(_) => Err(format!("{TIME_HELP}, or off")),
    }
}

/// The age, or `off`.
pub(super) fn show_age(age: Option<Duration>) -> String {
    age.map_or_else(|| "off".to_owned(), show_time)
}

/// A size or a percentage.
pub(super) fn keep_free(text: &str) -> Result<KeepFree, Problem> {
    let text = text.trim();
    if text == "auto" {
        return Ok(KeepFree::Auto);
    }
    let Some(number) = text.strip_suffix('%') else {
        return size(text).map(KeepFree::Bytes).map_err(|problem| {
            if problem == SIZE_HELP {
                "is neither a size nor a percentage nor auto; write 5% or 2GiB".to_owned()
            } else {
                problem
            }
        });
    };
    let digits = number.trim_end();
    let plain = digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    match digits.parse::<f64>() {
        Ok(percent) if plain && percent < 100.0 => Ok(KeepFree::Percent(percent)),
        Ok(_) if plain => Err("leaves no space for entries; write less than 100%".to_owned()),
        _ => Err("is neither a size nor a percentage nor auto; write 5% or 2GiB".to_owned()),
    }
}

/// The share, the size or `auto`.
pub(super) fn show_keep_free(keep: KeepFree) -> String {
    match keep {
        KeepFree::Auto => "auto".to_owned(),
        KeepFree::Bytes(bytes) => show_size(bytes),
        KeepFree::Percent(percent) => format!("{percent}%"),
    }
}

/// A whole number.
pub(super) fn count<N: std::str::FromStr>(text: &str) -> Result<N, Problem> {
    text.trim()
        .parse()
        .map_err(|_| "is not a whole number; write digits only".to_owned())
}

/// `true` or `false`, and the other words that files and variables use for them.
pub(super) fn switch(text: &str) -> Result<bool, Problem> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("is neither true nor false".to_owned()),
    }
}

/// One of a few words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Problem> {
    words
        .iter()
        .find(|(word, _)| *word == text.trim())
        .map(|(_, value)| *value)
        .ok_or_else(|| {
            let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            format!("is none of {}", names.join(", "))
        })
}

/// The word of a value.
pub(super) fn show_word<T: Copy + PartialEq>(value: T, words: &[(&str, T)]) -> String {
    words
        .iter()
        .find(|(_, this)| *this == value)
        .map_or_else(String::new, |(word, _)| (*word).to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written_in_the_manual() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("500MB"), Ok(500_000_000));
        assert_eq!(size(" 1.5 KiB "), Ok(1536));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("0"), Ok(0));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            " ",
            "MiB",
            "-1",
            "-1MiB",
            "+1MiB",
            "1XiB",
            "1 2MiB",
            "1e9",
            "NaN",
            "inf",
            ".",
            "0x10",
            "64MiB;",
            "٣MiB",
            "1..5MiB",
            "99999999999GiB",
            "18446744073709551616",
            "9EiB",
            "18446744073709551615",
        ] {
            assert!(size(text).is_err(), "{text:?} was read as {:?}", size(text));
        }
    }

    #[test]
    fn times_are_read_as_they_are_written_in_the_manual() {
        assert_eq!(time("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(time("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(age("30d"), Ok(Some(Duration::from_secs(30 * 86400))));
        assert_eq!(age("off"), Ok(None));
        assert_eq!(time("200us"), Ok(Duration::from_micros(200)));
        assert_eq!(time("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "60",
            "-1s",
            "1.5",
            "soon",
            "1h off",
            "99999999999999999999d",
            "0s",
            "0",
        ] {
            assert!(age(text).is_err(), "{text:?} was read as {:?}", age(text));
        }
    }

    #[test]
    fn free_space_is_a_share_or_a_size() {
        assert_eq!(keep_free("5%"), Ok(KeepFree::Percent(5.0)));
        assert_eq!(keep_free("0.5 %"), Ok(KeepFree::Percent(0.5)));
        assert_eq!(keep_free("auto"), Ok(KeepFree::Auto));
        assert_eq!(keep_free("2GiB"), Ok(KeepFree::Bytes(2 << 30)));
        for text in [
            "%", "-5%", "100%", "1000%", "NaN%", "inf%", "5%%", "1e1%", "five",
        ] {
            assert!(keep_free(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back_exactly(
            bytes in 0..=MAX_SIZE, unit in 0..40u32, nanos in 1..u64::MAX, percent in 0.0..100.0,
        ) {
            let bytes = bytes >> unit << unit;
            prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
            let long = Duration::from_nanos(nanos);
            prop_assert_eq!(time(&show_time(long)), Ok(long));
            prop_assert_eq!(age(&show_age(Some(long))), Ok(Some(long)));
            let keep = KeepFree::Percent(percent);
            prop_assert_eq!(keep_free(&show_keep_free(keep)), Ok(keep));
        }

        #[test]
        fn no_text_makes_a_reader_panic(text in ".{0,20}") {
            let _ = (size(&text), age(&text), keep_free(&text), count::<u64>(&text), switch(&text));
        }
    }
}
