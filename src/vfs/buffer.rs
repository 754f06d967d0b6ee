//! Content that is not committed: staged files, and files being changed in place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::error::{Error, Result};
use super::node::Xattrs;
use crate::tier::{Digest, Digester};

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
            .map_err(|_| Error::STAGING_FULL)
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
    /// Follows the content as long as it only grows at its end, as engines write.
    digester: Option<Digester>,
    /// Whether the backing directory has a file under this name: an older state of this content.
    pub(super) on_disk: bool,
    /// Whether a program asked for this content to be on the medium (fsync) before it was committed.
    pub(super) flush_wanted: bool,
    pub(super) touched: SystemTime,
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
    pub(super) fn new(
        staging: &Arc<Staging>,
        bytes: Vec<u8>,
        on_disk: bool,
        touched: SystemTime,
    ) -> Result<Self> {
        let reserved = bytes.len() as u64;
        staging.reserve(reserved)?;
        staging.files.fetch_add(1, Ordering::Relaxed);
        let digester = bytes.is_empty().then(Digester::default);
        Ok(Self {
            bytes,
            reserved,
            staging: Arc::clone(staging),
            digester,
            on_disk,
            flush_wanted: false,
            touched,
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
        usize::try_from(len).map_err(|_| Error::TOO_LARGE)
    }

    /// Writes `data` at `offset`, filling a gap with zeros.
    ///
    /// # Errors
    /// ENOSPC beyond the staging budget; nothing is changed then.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let end = offset
            .checked_add(data.len() as u64)
            .ok_or(Error::TOO_LARGE)?;
        let end = self.grow_to(end.max(self.bytes.len() as u64))?;
        if offset == self.bytes.len() as u64 {
            if let Some(digester) = &mut self.digester {
                digester.update(data);
            }
            self.bytes.extend_from_slice(data);
            return Ok(());
        }
        self.digester = None;
        self.bytes.resize(end, 0);
        // Within bounds: `end` covers offset + data.len(), so offset fits in a usize as well.
        let start = offset as usize;
        self.bytes[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }

    /// Cuts off at `len`, or fills up with zeros.
    pub(super) fn resize(&mut self, len: u64) -> Result<()> {
        if len == self.bytes.len() as u64 {
            return Ok(());
        }
        let len = self.grow_to(len)?;
        self.bytes.resize(len, 0);
        self.bytes.shrink_to_fit();
        self.staging.release(self.reserved - len as u64);
        self.reserved = len as u64;
        self.digester = (len == 0).then(Digester::default);
        Ok(())
    }

    /// The digest of the content as it is.
    pub(super) fn digest(&self) -> Digest {
        match &self.digester {
            Some(digester) if digester.seen() == self.bytes.len() as u64 => {
                digester.clone().finish()
            }
            _ => Digest::of(&self.bytes),
        }
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

    #[test]
    fn appended_overwritten_and_cut_content_has_the_right_digest() {
        let staging = staging(1_000);
        let mut buffer = Buffer::new(&staging, Vec::new(), false, SystemTime::UNIX_EPOCH).unwrap();
        buffer.write(0, b"hello ").unwrap();
        buffer.write(6, b"world").unwrap();
        assert_eq!(buffer.digest(), Digest::of(b"hello world"));
        buffer.write(2, b"LL").unwrap();
        assert_eq!(buffer.digest(), Digest::of(b"heLLo world"));
        buffer.resize(4).unwrap();
        assert_eq!(buffer.digest(), Digest::of(b"heLL"));
        buffer.write(6, b"x").unwrap();
        assert_eq!(buffer.bytes(), b"heLL\0\0x");
        assert_eq!(buffer.digest(), Digest::of(b"heLL\0\0x"));
        buffer.resize(0).unwrap();
        buffer.write(0, b"new").unwrap();
        assert_eq!(buffer.digest(), Digest::of(b"new"));
        assert_eq!(staging.used(), 3);
        drop(buffer);
        assert_eq!((staging.used(), staging.files()), (0, 0));
    }

    #[test]
    fn beyond_the_staging_budget_a_write_fails_and_changes_nothing() {
        let staging = staging(10);
        let mut one = Buffer::new(
            &staging,
            b"12345678".to_vec(),
            false,
            SystemTime::UNIX_EPOCH,
        )
        .unwrap();
        assert_eq!(one.write(8, b"abc"), Err(Error::STAGING_FULL));
        assert_eq!(one.bytes(), b"12345678");
        assert!(Buffer::new(&staging, vec![0; 3], false, SystemTime::UNIX_EPOCH).is_err());
        assert_eq!((staging.used(), staging.files()), (8, 1));
        one.write(8, b"ab").unwrap();
        one.resize(2).unwrap();
        assert_eq!(staging.used(), 2);
    }
}
