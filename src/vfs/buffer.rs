//! Content that is not committed: staged files, and files being changed in place.

use std::sync::Arc;

use super::budget::{Budget, Charge};
use super::error::{Error, Result};
use super::node::Xattrs;
use crate::tier::{Digest, Digester, DiskTier, Draft};

/// What a staged file costs in memory beside its content, at the most.
const FILE_COST: u64 = 1_024;

/// Staged files that there may be whatever the budget is.
const MIN_FILES: u64 = 1_024;

/// The budgets of uncommitted content, against `--staging`: its bytes with those of extended attributes, and the
/// number of files that have any.
#[derive(Debug)]
pub(super) struct Staging {
    bytes: Arc<Budget>,
    files: Arc<Budget>,
}

impl Staging {
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            bytes: Budget::new(bytes),
            files: Budget::new((bytes / FILE_COST).max(MIN_FILES)),
        }
    }

    pub(super) fn bytes(&self) -> &Budget {
        &self.bytes
    }

    pub(super) fn files(&self) -> &Budget {
        &self.files
    }
}

/// One file's uncommitted content. Its bytes are reserved from [`Staging`] until it is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    reserved: Charge,
    _file: Charge,
    /// How many bytes from the start are in `digester`, and in `draft` if there is one.
    settled: usize,
    digester: Digester,
    draft: Option<Draft>,
    /// Whether the backing directory has a file under this name: an older state of this content.
    pub(super) on_disk: bool,
    /// Whether it was never committed under any name.
    pub(super) staged: bool,
    /// Whether a program asked for this content to be on the medium (fsync) before it was committed.
    pub(super) flush_wanted: bool,
    /// Extended attributes, unless the backing file has them: see `own_xattrs`.
    pub(super) xattrs: Xattrs,
    /// Whether `xattrs` are the file's. False where the content of a committed file is being changed.
    pub(super) own_xattrs: bool,
}

impl Buffer {
    /// A buffer that begins with `bytes`.
    ///
    /// # Errors
    /// ENOSPC if they do not fit in the staging area, or if there are too many files in it.
    pub(super) fn new(staging: &Staging, bytes: Vec<u8>, on_disk: bool) -> Result<Self> {
        let reserved = staging.bytes.charge(bytes.len() as u64);
        Ok(Self {
            bytes,
            reserved: reserved.ok_or(Error::StagingFull)?,
            _file: staging.files.charge(1).ok_or(Error::TooManyStaged)?,
            settled: 0,
            digester: Digester::default(),
            draft: None,
            on_disk,
            staged: true,
            flush_wanted: false,
            xattrs: Vec::new(),
            own_xattrs: !on_disk,
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reserves room for `len` bytes of content and for the extended attributes.
    fn reserve(&mut self, len: u64) -> bool {
        let xattrs = self.xattrs.iter();
        let xattrs: usize = xattrs.map(|(key, value)| key.len() + value.len()).sum();
        self.reserved.resize(len.saturating_add(xattrs as u64))
    }

    /// Changes the extended attributes.
    ///
    /// # Errors
    /// That of `apply`, and ENOSPC beyond the staging budget; nothing is changed then.
    pub(super) fn change_xattrs<T>(
        &mut self,
        apply: impl FnOnce(&mut Xattrs) -> Result<T>,
    ) -> Result<T> {
        let before = self.xattrs.clone();
        let applied = apply(&mut self.xattrs);
        if applied.is_err() || !self.reserve(self.bytes.len() as u64) {
            self.xattrs = before;
            return applied.and(Err(Error::StagingFull));
        }
        applied
    }

    fn grow_to(&mut self, len: u64) -> Result<usize> {
        if !self.reserve(len.max(self.bytes.len() as u64)) {
            return Err(Error::StagingFull);
        }
        usize::try_from(len).map_err(|_| Error::TooLarge)
    }

    /// The content from `offset` on is about to change: what was made of it is of no use.
    fn unsettle(&mut self, offset: usize) {
        if offset < self.settled {
            self.settled = 0;
            self.digester = Digester::default();
            self.draft = None;
        }
    }

    /// Writes `data` at `offset`, filling a gap with zeros.
    ///
    /// # Errors
    /// ENOSPC beyond the staging budget; nothing is changed then.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let end = offset
            .checked_add(data.len() as u64)
            .ok_or(Error::TooLarge)?;
        let end = self.grow_to(end.max(self.bytes.len() as u64))?;
        // `end` covers offset + data.len(), so the offset fits in a usize as well.
        let start = offset as usize;
        if start == self.bytes.len() {
            self.bytes.extend_from_slice(data);
            return Ok(());
        }
        self.unsettle(start);
        self.bytes.resize(end, 0);
        self.bytes[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }

    /// Cuts off at `len`, or fills up with zeros.
    pub(super) fn resize(&mut self, len: u64) -> Result<()> {
        let len = self.grow_to(len)?;
        self.unsettle(len);
        self.bytes.resize(len, 0);
        self.bytes.shrink_to_fit();
        self.shrink();
        Ok(())
    }

    /// Lets go of the content: it will never be whole.
    pub(super) fn give_up(&mut self) {
        self.unsettle(0);
        self.draft = None;
        self.bytes = Vec::new();
        self.shrink();
    }

    fn shrink(&mut self) {
        // What there is of it can be had again.
        let _ = self.reserve(self.bytes.len() as u64);
    }

    /// Brings the digest up to date, and with `disk` the draft too: begun with permission bits `mode` if
    /// there is none. Engines append, so each byte is hashed and written once.
    pub(super) fn settle(&mut self, disk: Option<(&DiskTier, u32)>) -> rustix::io::Result<()> {
        if let (None, Some((disk, mode))) = (&self.draft, disk) {
            let draft = disk.begin(mode)?;
            disk.write(&draft, &self.bytes[..self.settled], 0)?;
            self.draft = Some(draft);
        }
        let fresh = &self.bytes[self.settled..];
        if let (Some(draft), Some((disk, _))) = (&self.draft, disk) {
            disk.write(draft, fresh, self.settled as u64)?;
        } else {
            self.draft = None;
        }
        self.digester.update(fresh);
        self.settled = self.bytes.len();
        Ok(())
    }

    /// The settled draft with its digest, for its name. The buffer can make another one.
    pub(super) fn take_draft(&mut self) -> Option<(Draft, Digest)> {
        let draft = self.draft.take()?;
        Some((draft, self.digester.clone().finish()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staging(budget: u64) -> Staging {
        Staging::new(budget)
    }

    fn digest(buffer: &mut Buffer) -> Digest {
        buffer.settle(None).unwrap();
        buffer.digester.clone().finish()
    }

    #[test]
    fn appended_overwritten_and_cut_content_has_the_right_digest() {
        let staging = staging(1_000);
        let mut buffer = Buffer::new(&staging, Vec::new(), false).unwrap();
        buffer.write(0, b"hello ").unwrap();
        assert_eq!(digest(&mut buffer), Digest::of(b"hello "));
        buffer.write(6, b"world").unwrap();
        assert_eq!(digest(&mut buffer), Digest::of(b"hello world"));
        buffer.write(2, b"LL").unwrap();
        assert_eq!(digest(&mut buffer), Digest::of(b"heLLo world"));
        buffer.resize(4).unwrap();
        assert_eq!(digest(&mut buffer), Digest::of(b"heLL"));
        buffer.write(6, b"x").unwrap();
        assert_eq!(buffer.bytes(), b"heLL\0\0x");
        assert_eq!(digest(&mut buffer), Digest::of(b"heLL\0\0x"));
        buffer.resize(0).unwrap();
        buffer.write(0, b"new").unwrap();
        assert_eq!(digest(&mut buffer), Digest::of(b"new"));
        assert_eq!(staging.bytes().used(), 3);
        drop(buffer);
        assert_eq!((staging.bytes().used(), staging.files().used()), (0, 0));
    }

    #[test]
    fn beyond_the_staging_budget_a_write_fails_and_changes_nothing() {
        let staging = staging(10);
        let mut one = Buffer::new(&staging, b"12345678".to_vec(), false).unwrap();
        assert_eq!(one.write(8, b"abc"), Err(Error::StagingFull));
        assert_eq!(one.bytes(), b"12345678");
        assert!(Buffer::new(&staging, vec![0; 3], false).is_err());
        assert_eq!((staging.bytes().used(), staging.files().used()), (8, 1));
        one.write(8, b"ab").unwrap();
        one.resize(2).unwrap();
        assert_eq!(staging.bytes().used(), 2);
    }

    #[test]
    fn extended_attributes_and_the_number_of_files_are_within_the_budget_too() {
        let staging = staging(10);
        let mut buffer = Buffer::new(&staging, b"1234".to_vec(), false).unwrap();
        let set = |len: usize| {
            move |xattrs: &mut Xattrs| {
                xattrs.push(("k".into(), vec![0; len]));
                Ok(())
            }
        };
        assert_eq!(buffer.change_xattrs(set(6)), Err(Error::StagingFull));
        assert!(buffer.xattrs.is_empty());
        buffer.change_xattrs(set(5)).unwrap();
        assert_eq!(staging.bytes().used(), 10);
        assert_eq!(buffer.write(4, b"5"), Err(Error::StagingFull));
        drop(buffer);
        let full: Result<Vec<Buffer>> = (0..=MIN_FILES)
            .map(|_| Buffer::new(&staging, Vec::new(), false))
            .collect();
        assert!(matches!(full, Err(Error::TooManyStaged)));
        assert_eq!((staging.bytes().used(), staging.files().used()), (0, 0));
    }
}
