//! How facts are printed: tables, sizes, ages, JSON.

use std::borrow::Cow;
use std::io;
use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use serde::Serialize;

use super::Output;

/// The text without control characters: a file name must not be able to drive the terminal.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() {
            cleaned.extend(c.escape_default());
        } else {
            cleaned.push(c);
        }
    }
    Cow::Owned(cleaned)
}

/// A number of bytes for people: `1.2 KiB`.
pub(super) fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// A span of time for people, in its largest unit: `3d`, `5h`, `12m`, `40s`.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A time as it is written on the command line.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "write a number and a unit, such as 500ms, 10s or 5m".to_owned())
}

/// How long ago a time is; `0s` for one that lies ahead.
pub(super) fn age(time: SystemTime, now: SystemTime) -> String {
    span(now.duration_since(time).unwrap_or_default())
}

/// Prints a value as indented JSON.
pub(super) fn json(out: Output<'_>, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    writeln!(out)
}

/// Prints a value as one line of JSON.
pub(super) fn json_line(out: Output<'_>, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    writeln!(out)
}

/// Which side of a column its text is on.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Rows with columns as wide as their widest cell.
pub(super) struct Table<const N: usize> {
    sides: [Side; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table with a title for each column.
    pub(super) fn new(columns: [(&str, Side); N]) -> Self {
        Self {
            sides: columns.map(|(_, side)| side),
            rows: vec![columns.map(|(title, _)| title.to_owned())],
        }
    }

    pub(super) fn add(&mut self, row: [String; N]) {
        self.rows.push(row.map(|cell| clean(&cell).into_owned()));
    }

    pub(super) fn print(&self, out: Output<'_>) -> io::Result<()> {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), side) in row.iter().zip(widths).zip(self.sides) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                match side {
                    Side::Left => line.push_str(&format!("{cell:<width$}")),
                    Side::Right => line.push_str(&format!("{cell:>width$}")),
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_not_sent() {
        assert_eq!(clean("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(clean("größe/日本"), "größe/日本");
    }

    #[test]
    fn spans_have_one_unit() {
        let shown = |seconds| span(Duration::from_secs(seconds));
        assert_eq!(shown(0), "0s");
        assert_eq!(shown(59), "59s");
        assert_eq!(shown(3599), "59m");
        assert_eq!(shown(86_399), "23h");
        assert_eq!(shown(864_000), "10d");
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new([("NAME", Side::Left), ("SIZE", Side::Right)]);
        table.add(["größe".to_owned(), "1".to_owned()]);
        table.add(["b".to_owned(), "12345".to_owned()]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "NAME    SIZE\ngröße      1\nb      12345\n"
        );
    }
}
