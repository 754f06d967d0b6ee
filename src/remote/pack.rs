//! A pack's body: the content of its entries, one after the other, as one zstd frame.

use std::io::{self, Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use super::envelope::{Subject, hex, seal, sha256};
use super::keys::SigningKey;
use super::manifest::{
    Body, FORMAT, MOST_BODY, MOST_ENTRIES, Manifest, Namespace, PackEntry, PackId,
};
use super::reject::{Reason, Reject};

/// A pack is closed once its content has this size, in bytes: so much of it is in memory at once.
pub const CLOSE_AT: u64 = 16 << 20;

/// zstd's own default, which is as fast as a disk.
const LEVEL: i32 = 3;

/// The largest window that a body may ask of its reader, as a power of 2: 8 MiB, which is what a level above 19 uses.
const WINDOW_LOG: u32 = 23;

/// A pack, as its two objects.
#[derive(Debug)]
pub struct Pack {
    /// Its name.
    pub id: PackId,
    /// The manifest in its envelope.
    pub manifest: Vec<u8>,
    /// The body.
    pub body: Vec<u8>,
    /// What the manifest says.
    pub parsed: Manifest,
}

/// What all packs of one push have in common.
#[derive(Debug, Clone)]
pub struct Maker {
    /// The namespace.
    pub namespace: Namespace,
    /// Its epoch.
    pub epoch: u64,
    /// This host's name.
    pub host: String,
}

/// The program, as it is named in manifests.
pub fn tool() -> String {
    concat!("kidafs ", env!("CARGO_PKG_VERSION")).to_owned()
}

/// Seconds since 1970; 0 where the clock says earlier.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Puts a pack together.
pub struct Builder {
    body: zstd::Encoder<'static, Vec<u8>>,
    entries: Vec<PackEntry>,
    content: u64,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} entries, {} bytes", self.entries.len(), self.content)
    }
}

impl Builder {
    /// An empty one.
    ///
    /// # Errors
    /// When zstd cannot have its memory.
    pub fn new() -> io::Result<Self> {
        let mut body = zstd::Encoder::new(Vec::new(), LEVEL)?;
        body.include_checksum(false)?;
        Ok(Self {
            body,
            entries: Vec::new(),
            content: 0,
        })
    }

    /// Adds an entry; its size and hash are set here.
    ///
    /// # Errors
    /// When zstd cannot have its memory.
    pub fn add(&mut self, mut entry: PackEntry, content: &[u8]) -> io::Result<()> {
        entry.size = content.len() as u64;
        entry.sha256 = hex(&sha256(content));
        self.body.write_all(content)?;
        self.content += entry.size;
        self.entries.push(entry);
        Ok(())
    }

    /// Whether `next` further bytes belong into another pack.
    pub fn is_full(&self, next: u64) -> bool {
        !self.entries.is_empty()
            && (self.content + next > CLOSE_AT || self.entries.len() >= MOST_ENTRIES)
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Closes and signs the pack.
    ///
    /// # Errors
    /// When zstd cannot have its memory, or the system has no random numbers.
    pub fn finish(
        self,
        maker: &Maker,
        replaces: Vec<String>,
        now: SystemTime,
        key: Option<&SigningKey>,
    ) -> io::Result<Pack> {
        let body = self.body.finish()?;
        let parsed = Manifest {
            format: FORMAT,
            namespace: maker.namespace.to_string(),
            epoch: maker.epoch,
            created: seconds(now),
            host: maker.host.clone(),
            tool: tool(),
            replaces,
            body: Body {
                size: body.len() as u64,
                sha256: hex(&sha256(&body)),
                content: self.content,
            },
            entries: self.entries,
        };
        let text = parsed.text();
        let manifest = seal(Subject::Pack, &text, key).map_err(io::Error::other)?;
        Ok(Pack {
            id: PackId::of(&text),
            manifest,
            body,
            parsed,
        })
    }
}

/// Checks a body against its manifest.
///
/// # Errors
/// [`Reason::BadBody`].
pub fn check_body(manifest: &Manifest, body: &[u8]) -> Result<(), Reject> {
    let is_it = body.len() as u64 == manifest.body.size
        && body.len() as u64 <= MOST_BODY
        && hex(&sha256(body)) == manifest.body.sha256;
    if is_it {
        Ok(())
    } else {
        let text = "the body is not the one that the manifest names";
        Err(Reject::new(Reason::BadBody, text))
    }
}

/// Reads a body from its beginning to its end, and hands out each entry that `wanted` asks for, by its index, once
/// its hash was seen to fit. An entry whose hash does not fit is handed out as a [`Reject`]. `each` ends it early by
/// returning `false`.
///
/// Never takes more memory than the largest wanted entry and zstd's window, whatever the body says: the sizes are the
/// manifest's, which were checked.
///
/// # Errors
/// [`Reason::BadBody`], also after entries were handed out.
pub fn read_body(
    manifest: &Manifest,
    body: &[u8],
    mut wanted: impl FnMut(usize) -> bool,
    mut each: impl FnMut(usize, Result<&[u8], Reject>) -> bool,
) -> Result<(), Reject> {
    let bad = |error: io::Error| {
        Reject::new(
            Reason::BadBody,
            format!("the body cannot be decompressed: {error}"),
        )
    };
    check_body(manifest, body)?;
    let mut decoder = zstd::Decoder::with_buffer(body).map_err(bad)?;
    decoder.window_log_max(WINDOW_LOG).map_err(bad)?;
    let mut decoder = decoder.single_frame();
    let mut content = Vec::new();
    for (index, entry) in manifest.entries.iter().enumerate() {
        if !wanted(index) {
            let skipped = io::copy(&mut (&mut decoder).take(entry.size), &mut io::sink());
            if skipped.map_err(bad)? != entry.size {
                return Err(bad(io::ErrorKind::UnexpectedEof.into()));
            }
            continue;
        }
        content.clear();
        let read = (&mut decoder).take(entry.size).read_to_end(&mut content);
        if read.map_err(bad)? as u64 != entry.size {
            return Err(bad(io::ErrorKind::UnexpectedEof.into()));
        }
        let checked = if sha256(&content) == entry.digest() {
            Ok(&content[..])
        } else {
            let text = format!("{} is not what the manifest names", entry.path);
            Err(Reject::new(Reason::BadEntry, text))
        };
        if !each(index, checked) {
            return Ok(());
        }
    }
    let mut more = [0];
    if decoder.read(&mut more).map_err(bad)? != 0 {
        return Err(bad(io::Error::other("it goes on beyond its entries")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
