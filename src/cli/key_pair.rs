//! `kidafs key generate` and `kidafs key show`: the key pairs of packs.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::{Outcome, Output, print};
use crate::remote::keys::{self, KeyFile, key_number};

/// Make a key pair for packs, in minisign's format: FILE for whoever pushes, FILE.pub for whoever pulls
#[derive(Args)]
pub(super) struct Generate {
    /// The secret key's file; the public key's gets .pub in place of .key, or after it
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Protect the secret key with the password in the variable KIDAFS_KEY_PASSWORD
    #[arg(long)]
    password: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Generate {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let public = match self.file.extension() {
            Some(ending) if ending == "key" => self.file.with_extension("pub"),
            _ => {
                let mut name = self.file.clone().into_os_string();
                name.push(".pub");
                name.into()
            }
        };
        let password = match std::env::var("KIDAFS_KEY_PASSWORD") {
            _ if !self.password => None,
            Ok(password) if !password.is_empty() => Some(password),
            _ => bail!("no password is given: put one into the variable KIDAFS_KEY_PASSWORD"),
        };
        // Before anything is made: a key that others trust must not be lost.
        for file in [&self.file, &public] {
            if file.exists() {
                bail!(
                    "{} is there already: name another file, or remove it if nobody trusts its key any more",
                    file.display()
                );
            }
        }
        let pair = keys::generate(password)?;
        write_new(&self.file, &pair.secret, 0o600)?;
        write_new(&public, &pair.public, 0o644)?;
        if self.json {
            let facts = json!({
                "number": pair.number,
                "secret": self.file,
                "public": public,
                "key": pair.base64,
            });
            print::json(out, &facts)?;
        } else {
            writeln!(out, "secret key {}", self.file.display())?;
            writeln!(out, "public key {}", public.display())?;
            writeln!(out, "--trust {}", pair.base64)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let mut file = options
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Show what a key is: its kind, its number, and the public key's line
#[derive(Args)]
pub(super) struct Show {
    /// A key file, or a public key's base64 line
    #[arg(value_name = "KEY")]
    key: String,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let (kind, public) = match KeyFile::read(&self.key)? {
            KeyFile::Public(key) => ("public", key),
            KeyFile::Secret(key) => ("secret", key.public("")?),
            KeyFile::Protected => {
                bail!(
                    "{} is a secret key with a password: look at its public key",
                    self.key
                )
            }
        };
        let number = key_number(public.number());
        let line = public.public().to_base64();
        if self.json {
            print::json(out, &json!({ "kind": kind, "number": number, "key": line }))?;
        } else {
            writeln!(out, "{kind} key {number}")?;
            writeln!(out, "--trust {line}")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
