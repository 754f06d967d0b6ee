//! `kidafs verify`: checks every entry's framing, marshal stream and digest.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::io::Errno;
use serde::Serialize;

use super::listing::{self, Unread};
use super::target::Target;
use super::{Outcome, Output, print};
use crate::evict::Reason;
use crate::format::kida::judge;
use crate::format::{EntryName, Pattern};
use crate::layout::STATS_JSON;
use crate::stats::Stats;
use crate::tier::{DIGEST_XATTR, Digester, Edition, Signature};

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
        let mut files = listing::unread(&target)?;
        // What is still being written is nobody's entry yet.
        files.retain(|file| !is_temporary(&pattern, file));
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
        let stats = target.hidden_json::<Stats>(STATS_JSON)?;
        let daemon_has_digests = stats.is_some_and(|stats| stats.digests);
        let mut aside = set_aside(&target)?;
        for file in &files {
            let path = target.dir.join(&file.path);
            let found = file.open(&target).and_then(|content| {
                let mut checked = check(content, &path, &pattern)?;
                checked.with_digest |= daemon_has_digests && file.is_kept();
                facts.checked += 1;
                Ok(checked)
            });
            let problem = match found {
                Ok(checked) => {
                    facts.with_digest += u64::from(checked.with_digest);
                    checked.problem
                }
                Err(error) => {
                    let now = set_aside(&target)?;
                    let this = now > aside;
                    aside = now;
                    // Unless it is that, it was evicted or replaced meanwhile.
                    if !this && !is_gone(&error) {
                        return Err(error)
                            .with_context(|| format!("cannot read {}", path.display()));
                    }
                    facts.checked += u64::from(this);
                    this.then(|| SET_ASIDE.to_owned())
                }
            };
            progress.inc(1);
            let Some(problem) = problem else { continue };
            let removed = self.remove && problem != SET_ASIDE && remove(&target, &file.path)?;
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

fn is_gone(error: &io::Error) -> bool {
    let stale = Errno::STALE.raw_os_error();
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(stale)
}

/// The daemon checks what it is asked for before this command can.
const SET_ASIDE: &str = "it is corrupt, so the daemon has set it aside";

/// How many files the daemon has found corrupt; 0 on a plain directory.
fn set_aside(target: &Target) -> anyhow::Result<u64> {
    let stats = target.hidden_json::<Stats>(STATS_JSON)?;
    let corrupt = stats.and_then(|stats| stats.evictions.get(&Reason::Corrupt).copied());
    Ok(corrupt.unwrap_or(0))
}

fn is_temporary(pattern: &Pattern, file: &Unread) -> bool {
    file.path
        .file_name()
        .is_some_and(|name| pattern.temporary_name(name).is_some())
}

fn remove(target: &Target, path: &Path) -> anyhow::Result<bool> {
    listing::remove(&target.dir, path)
        .with_context(|| format!("cannot remove {}", target.dir.join(path).display()))?;
    Ok(true)
}

/// What is read into memory of a file. No engine makes an entry of such a size, and a file that says it has one may
/// take no space at all.
const READABLE: u64 = 256 << 20;

struct Checked {
    with_digest: bool,
    problem: Option<String>,
}

/// Checks one file. What another engine wrote is only compared with its digest; on a mount the daemon does that
/// while it is read.
fn check(mut file: File, path: &Path, pattern: &Pattern) -> io::Result<Checked> {
    let signature = signature(&file)?;
    let found = file.metadata()?;
    let name = path.file_name().and_then(|name| pattern.parse_name(name));
    let mut digester = Digester::default();
    let problem = match &name {
        Some(_) if found.len() > READABLE => {
            if signature != Signature::None {
                digest_rest(&mut file, &mut digester)?;
            }
            Some(format!(
                "it is larger than any entry ({})",
                print::size(found.len())
            ))
        }
        Some(name) => {
            let mut content = Vec::new();
            file.by_ref().take(READABLE).read_to_end(&mut content)?;
            digester.update(&content);
            problem_of(name, &content)
        }
        None => {
            digest_rest(&mut file, &mut digester)?;
            None
        }
    };
    let differs = "its content does not match its digest";
    let (with_digest, differs) = match signature {
        Signature::None => (false, None),
        Signature::Malformed => (true, Some("its digest is malformed")),
        Signature::Of(expected, _) if expected == digester.finish() => (true, None),
        // A later edition, which the next daemon judges by its form.
        Signature::Of(_, Some(signed)) if name.is_none() && was_changed(&signed, &found) => {
            (false, None)
        }
        Signature::Of(..) => (true, Some(differs)),
    };
    Ok(Checked {
        with_digest,
        problem: differs.map(str::to_owned).or(problem),
    })
}

fn was_changed(signed: &Edition, found: &Metadata) -> bool {
    let now = found.modified();
    now.is_ok_and(|mtime| signed.was_changed(&Edition::new(found.len(), mtime)))
}

fn digest_rest(file: &mut File, digester: &mut Digester) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            count => digester.update(&buffer[..count]),
        }
    }
}

/// What is wrong with an entry. Nothing is said of a format that this release does not know, nor of the
/// streams of an interpreter that it does not know.
fn problem_of(name: &EntryName<'_>, content: &[u8]) -> Option<String> {
    match judge(name.version, content) {
        Ok(judged) => {
            let fault = judged.ast_fault?;
            Some(format!("its syntax tree is no pickle: {fault}"))
        }
        Err(fault) if fault.is_unknown_format() => None,
        Err(fault) => Some(fault.to_string()),
    }
}

/// What was stored with a file.
fn signature(file: &File) -> io::Result<Signature> {
    let mut buffer = [0; 64];
    match rustix::fs::fgetxattr(file, DIGEST_XATTR, &mut buffer) {
        Ok(length) => Ok(Signature::from_stored(&buffer[..length])),
        Err(Errno::RANGE) => Ok(Signature::Malformed),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(Signature::None),
        Err(errno) => Err(errno.into()),
    }
}
