//! Content that is not committed: staged files, and files being changed in place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{Error, Result};
use super::node::Xattrs;
use crate::tier::{Digest, Digester, DiskTier, Draft};

/// Bytes of uncommitted content in all buffers, against `--staging`.
#[derive(Debug)]
pub(super) struct Staging {
    used: AtomicU64,
    files: AtomicU64,
    budget: u64,
}

impl Staging {
    pub(super) fn new(budget: u64) -> Self {
        Self {
            used: AtomicU64::new(0),
            files: AtomicU64::new(0),
            budget,
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    pub(super) fn budget(&self) -> u64 {
        self.budget
    }

    fn reserve(&self, bytes: u64) -> Result<()> {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= self.budget)
            })
            .map(|_| ())
            .map_err(|_| Error::StagingFull)
    }

    fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One file's uncommitted content. Its bytes are reserved from [`Staging`] until it is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    reserved: u64,
    staging: Arc<Staging>,
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
    /// ENOSPC if they do not fit in the staging area.
    pub(super) fn new(staging: &Arc<Staging>, bytes: Vec<u8>, on_disk: bool) -> Result<Self> {
        let reserved = bytes.len() as u64;
        staging.reserve(reserved)?;
        staging.files.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            bytes,
            reserved,
            staging: Arc::clone(staging),
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

    fn grow_to(&mut self, len: u64) -> Result<usize> {
        if len > self.reserved {
            self.staging.reserve(len - self.reserved)?;
            self.reserved = len;
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
        self.staging.release(self.reserved - len as u64);
        self.reserved = len as u64;
        Ok(())
    }

    /// Lets go of the content: it will never be whole.
    pub(super) fn give_up(&mut self) {
        self.unsettle(0);
        self.draft = None;
        self.bytes = Vec::new();
        self.staging.release(self.reserved);
        self.reserved = 0;
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

impl Drop for Buffer {
    fn drop(&mut self) {
        self.staging.release(self.reserved);
        self.staging.files.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staging(budget: u64) -> Arc<Staging> {
        Arc::new(Staging::new(budget))
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
        assert_eq!(staging.used(), 3);
        drop(buffer);
        assert_eq!((staging.used(), staging.files()), (0, 0));
    }

    #[test]
    fn beyond_the_staging_budget_a_write_fails_and_changes_nothing() {
        let staging = staging(10);
        let mut one = Buffer::new(&staging, b"12345678".to_vec(), false).unwrap();
        assert_eq!(one.write(8, b"abc"), Err(Error::StagingFull));
        assert_eq!(one.bytes(), b"12345678");
        assert!(Buffer::new(&staging, vec![0; 3], false).is_err());
        assert_eq!((staging.used(), staging.files()), (8, 1));
        one.write(8, b"ab").unwrap();
        one.resize(2).unwrap();
        assert_eq!(staging.used(), 2);
    }
}
