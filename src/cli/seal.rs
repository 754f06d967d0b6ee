//! `kidafs seal`: seals a directory by hand.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::{Outcome, Output, print};
use crate::daemon::backing::{Backing, Sharing};
use crate::daemon::mountpoint::{self, State};
use crate::daemon::seal_key;
use crate::layout::PRIVATE_DIR;
use crate::stop::Stop;
use crate::tier::{Blessed, Directory, DiskTier, Found, FoundKind, Way};

/// Give every file of a directory a seal, so that it is served with --seal-key; exit status 1 if one gets none
#[derive(Args)]
pub(super) struct Seal {
    /// The cache, not mounted
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// The key file; its first key seals
    #[arg(long, value_name = "FILE")]
    seal_key: PathBuf,

    /// Only move what is sealed by a later key of the file to its first one
    #[arg(long)]
    rekey: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Default, Serialize)]
struct Facts {
    /// Files that have a new seal.
    sealed: u64,
    /// Files that had a right one by the first key.
    already: u64,
    /// Files that get none.
    refused: Vec<Refused>,
}

#[derive(Serialize)]
struct Refused {
    file: String,
    reason: String,
}

impl Seal {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let shown = self.dir.display();
        match mountpoint::inspect(&self.dir)?.state {
            State::Directory => {}
            State::Missing => bail!("{shown} is missing: name a directory"),
            _ => bail!("{shown} is mounted: run `kidafs umount` on it first"),
        }
        let keys = seal_key::read(&self.seal_key, &self.dir)?;
        let sharing = Sharing {
            allow_other: true,
            ..Sharing::default()
        };
        let mut backing = Backing::open(&self.dir, sharing)?;
        backing.leave_plain();
        let mut opened = backing.opened()?;
        opened.seals = Some(keys);
        let disk = DiskTier::open(opened, false, None)
            .with_context(|| format!("cannot seal {shown}: it needs extended attributes"))?;
        let (way, _) = disk.root_way()?;
        let mut facts = Facts::default();
        let mut todo = vec![(disk.root(), String::new(), way)];
        while let Some((dir, path, way)) = todo.pop() {
            for found in disk.list(&dir, &Stop::default())? {
                if path.is_empty() && found.name == PRIVATE_DIR {
                    continue;
                }
                let name = found.name.to_string_lossy();
                let own = format!("{path}{name}");
                if let Some(below) = self.look(&disk, &dir, &found, own.clone(), way, &mut facts)? {
                    let way = disk.way(&dir, &found, way);
                    todo.push((below, format!("{own}/"), way));
                }
            }
        }
        self.tell(out, &facts)
    }

    fn look(
        &self,
        disk: &DiskTier,
        dir: &Directory,
        found: &Found,
        file: String,
        way: Way,
        facts: &mut Facts,
    ) -> anyhow::Result<Option<Directory>> {
        let mut refuse = |reason: String| {
            facts.refused.push(Refused {
                file: file.clone(),
                reason,
            });
        };
        if let Err(stranger) = disk.judge(dir, found, way, false) {
            refuse(format!("{stranger}, who could have written it"));
            return Ok(None);
        }
        match &found.kind {
            FoundKind::Directory => return Ok(Some(disk.directory(dir, found))),
            FoundKind::File => {}
            FoundKind::Symlink(_) | FoundKind::Other => {
                refuse("only files can be sealed".to_owned());
                return Ok(None);
            }
        }
        let name: &OsStr = &found.name;
        match disk.bless(dir, name, self.rekey) {
            Ok(Blessed::Sealed) => facts.sealed += 1,
            Ok(Blessed::Already) => facts.already += 1,
            Ok(Blessed::Unsealed) => refuse("it has no right seal by a key of the file".to_owned()),
            Ok(Blessed::Damaged) => refuse("its content does not match its digest".to_owned()),
            Err(error) => refuse(error.to_string()),
        }
        Ok(None)
    }

    fn tell(&self, out: Output<'_>, facts: &Facts) -> Outcome {
        if self.json {
            print::json(out, facts)?;
        } else {
            for refused in &facts.refused {
                let text = format!("{}: {}", refused.file, refused.reason);
                writeln!(out, "{}", print::clean(&text))?;
            }
            writeln!(
                out,
                "{} files sealed, {} were already, {} are not",
                facts.sealed,
                facts.already,
                facts.refused.len()
            )?;
        }
        Ok(match facts.refused.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}
