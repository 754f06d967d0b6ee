//! `kidafs verify`: checks every entry's framing, marshal stream and digest.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::listing::{self, Found};
use super::target::Target;
use super::{Outcome, Output, print};
use crate::format::warnings::parse_warnings;
use crate::format::{Entry, Pattern, marshal, pickle};

/// The extended attribute that holds the digest of a committed file's content.
const DIGEST: &str = "user.kidafs.sha256";

/// Check every entry; exit status 1 if one is bad
#[derive(Args)]
pub(super) struct Verify {
    /// The cache: a mount point or a plain directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Remove bad entries, which the engine then makes anew
    #[arg(long)]
    remove: bool,

    /// Entry names [default: the mount's, or KIDAFS_PATTERN]
    #[arg(long, value_name = "P")]
    pattern: Option<Pattern>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Facts {
    checked: u64,
    with_digest: u64,
    bad: Vec<Bad>,
}

#[derive(Serialize)]
struct Bad {
    file: String,
    problem: String,
    removed: bool,
}

impl Verify {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let target = Target::open(&self.dir)?;
        let pattern = target.pattern(self.pattern)?;
        let mut files = listing::files(&target.dir)?;
        // What is still being written is nobody's entry yet.
        files.retain(|file| !is_temporary(&pattern, file));
        files.sort_by(|a, b| a.path.cmp(&b.path));
        // Hidden by itself where standard error is no terminal.
        let progress = ProgressBar::new(files.len() as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len}, {eta} left") {
            progress.set_style(style);
        }
        let mut facts = Facts {
            checked: 0,
            with_digest: 0,
            bad: Vec::new(),
        };
        for file in &files {
            let path = target.dir.join(&file.path);
            match check(&path, &pattern) {
                Ok(checked) => {
                    facts.checked += 1;
                    facts.with_digest += u64::from(checked.with_digest);
                    if let Some(problem) = checked.problem {
                        let removed = self.remove && remove(&path)?;
                        let bad = Bad {
                            file: file.path.to_string_lossy().into_owned(),
                            problem,
                            removed,
                        };
                        if !self.json {
                            let note = if removed { " (removed)" } else { "" };
                            let text = format!("{}: {}{note}", bad.file, bad.problem);
                            progress.suspend(|| writeln!(out, "{}", print::clean(&text)))?;
                        }
                        facts.bad.push(bad);
                    }
                }
                // It was evicted or replaced meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot read {}", path.display()));
                }
            }
            progress.inc(1);
        }
        progress.finish_and_clear();
        if self.json {
            print::json(out, &facts)?;
        } else {
            writeln!(
                out,
                "{} files checked, {} of them with a digest, {} bad",
                facts.checked,
                facts.with_digest,
                facts.bad.len()
            )?;
        }
        Ok(if facts.bad.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn is_temporary(pattern: &Pattern, file: &Found) -> bool {
    file.path
        .file_name()
        .is_some_and(|name| pattern.temporary_name(name).is_some())
}

fn remove(path: &Path) -> anyhow::Result<bool> {
    std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    Ok(true)
}

struct Checked {
    with_digest: bool,
    problem: Option<String>,
}

/// Checks one file. What another engine wrote is only compared with its digest.
fn check(path: &Path, pattern: &Pattern) -> io::Result<Checked> {
    let mut file = listing::open_quietly(path)?;
    let expected = stored_digest(&file)?;
    let is_entry = path
        .file_name()
        .is_some_and(|name| pattern.parse_name(name).is_some());
    let mut hasher = Sha256::new();
    let problem = if is_entry {
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        hasher.update(&content);
        problem_of(&content)
    } else {
        if expected.is_some() {
            hash_rest(&mut file, &mut hasher)?;
        }
        None
    };
    let with_digest = expected.is_some();
    let differs = expected.is_some_and(|digest| digest != hasher.finalize().as_slice());
    let problem = if differs {
        Some("its content does not match its digest".to_owned())
    } else {
        problem
    };
    Ok(Checked {
        with_digest,
        problem,
    })
}

fn hash_rest(file: &mut File, hasher: &mut Sha256) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// What is wrong with an entry.
fn problem_of(content: &[u8]) -> Option<String> {
    let entry = match Entry::parse(content) {
        Ok(entry) => entry,
        Err(error) => return Some(error.to_string()),
    };
    if let Err(error) = marshal::check(entry.code) {
        return Some(format!("its code does not unmarshal: {error}"));
    }
    if let Some(Err(error)) = entry.precomputed.map(pickle::check) {
        return Some(format!("its precomputed values are no pickle: {error}"));
    }
    if let Some(Err(error)) = entry.warnings.map(parse_warnings) {
        return Some(format!("its warnings cannot be read: {error}"));
    }
    if let Some(Err(error)) = entry.ast.map(pickle::check) {
        return Some(format!("its syntax tree is no pickle: {error}"));
    }
    None
}

/// The digest that was stored with a file: 32 bytes, or 64 hex digits. `None` where there is none.
fn stored_digest(file: &File) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = [0; 65];
    match rustix::fs::fgetxattr(file, DIGEST, &mut buffer) {
        Ok(32) => Ok(Some(buffer[..32].to_vec())),
        Ok(64) => Ok(unhex(&buffer[..64])),
        // No digest of ours.
        Ok(_) => Ok(None),
        Err(
            rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::RANGE,
        ) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}
