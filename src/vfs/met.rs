//! What a directory remembers of the daemons that have served it, for the ages of its files.
//!
//! Access times say when a file was last used only where a daemon has kept them: a file that comes out of an archive,
//! an image or a backup has whatever times it was given. So a file that nobody here has seen yet is as young as its
//! meeting. Whether it was seen is told by two times in an extended attribute of the directory: when it was first
//! served, and up to when its files are known. A file that has changed later (its `ctime`, which nobody can set) is new.

use std::ffi::OsStr;
use std::time::{Duration, SystemTime};

use rustix::fs::XattrFlags;

use super::Vfs;
use crate::layout::MET_XATTR;
use crate::tier::Found;

/// What is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Met {
    /// When the directory was first served, by the time of day: nothing in it counts as older.
    pub(super) first: SystemTime,
    /// Up to when its files are known, by the backing filesystem's clock; `None`: none is.
    known: Option<SystemTime>,
}

impl Met {
    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (first, known) = text.trim_end().split_once(' ')?;
        let time = |digits: &str| {
            let nanos = digits.parse().ok()?;
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(nanos))
        };
        Some(Self {
            first: time(first)?,
            known: Some(time(known)?),
        })
    }

    fn text(first: SystemTime, known: SystemTime) -> String {
        let nanos = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH);
            since.unwrap_or_default().as_nanos()
        };
        format!("{} {}", nanos(first), nanos(known))
    }

    /// Whether a file has not changed since it was last seen.
    pub(super) fn knows(&self, found: &Found) -> bool {
        self.known.is_some_and(|known| found.ctime <= known)
    }
}

impl Vfs {
    /// What the directory remembers; a directory that does not is met now.
    pub(super) fn recall(&self) -> Met {
        let new = Met {
            first: self.now(),
            known: None,
        };
        let told = self
            .disk
            .xattr(&self.disk.root(), OsStr::new("."), OsStr::new(MET_XATTR));
        let Some(mut met) = told.ok().and_then(|text| Met::parse(&text)) else {
            return new;
        };
        if met.first > new.first {
            met.first = new.first;
        }
        // Known up to a time that is still to come: that clock was wrong.
        let Some(now) = self.clock_of_the_disk(met.first, met.known) else {
            return met;
        };
        if met.known.is_some_and(|known| known > now) {
            return new;
        }
        met
    }

    /// Has the directory remember that its files are known up to now.
    pub(super) fn remember(&self) {
        let first = self.met.get().map_or_else(|| self.now(), |met| met.first);
        if let Some(now) = self.clock_of_the_disk(first, None) {
            self.set_met(first, now);
        }
    }

    /// The time by the backing filesystem's clock, which stamps what is written. `None` where nothing may be.
    fn clock_of_the_disk(
        &self,
        first: SystemTime,
        known: Option<SystemTime>,
    ) -> Option<SystemTime> {
        let known = known.unwrap_or(SystemTime::UNIX_EPOCH);
        if self.config.read_only || !self.set_met(first, known) {
            return None;
        }
        Some(self.disk.root_found().ok()?.ctime)
    }

    fn set_met(&self, first: SystemTime, known: SystemTime) -> bool {
        let text = Met::text(first, known);
        let set = self.disk.set_xattr(
            &self.disk.root(),
            OsStr::new("."),
            super::setattr::known(&self.root),
            (OsStr::new(MET_XATTR), text.as_bytes()),
            XattrFlags::empty(),
        );
        if let Err(error) = &set {
            log::debug!("the directory does not remember when it was served: {error}");
        }
        set.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_nonsense_is_nothing() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::new(seconds, 5);
        let met = Met::parse(Met::text(at(1), at(2)).as_bytes());
        assert_eq!(
            met,
            Some(Met {
                first: at(1),
                known: Some(at(2))
            })
        );
        for text in ["", "1", "x y", "1 -2", "99999999999999999999 1", "1 2 3"] {
            assert_eq!(Met::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Met::parse(b"\xff 1"), None);
    }
}
