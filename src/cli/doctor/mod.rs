//! `kidafs doctor`: whether this machine and this directory can have a mount, and what to do if
//! not.

mod directory;
mod machine;
mod trial;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::options::{self, MountOptions};
use super::{Outcome, Output, print};
use crate::config::Config;

/// Check what a mount needs, one line each, with its cure
#[derive(Args)]
pub(super) struct Doctor {
    /// A directory that is, or is to be, served
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// It works, less well than it could.
    Note,
    Fail,
}

#[derive(Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    cure: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Ok,
            found: found.into(),
            cure: None,
        }
    }

    fn note(check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Note,
            found: found.into(),
            cure: Some(cure.into()),
        }
    }

    fn fail(check: &'static str, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::note(check, found, cure)
        }
    }
}

impl Doctor {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let mut findings = vec![machine::device(), machine::helper(), machine::kernel()];
        // Where one of those fails a trial could only say so again.
        if findings.iter().all(|f| f.verdict != Verdict::Fail) {
            findings.extend(machine::trial());
        }
        findings.push(machine::latency());
        let config = match options::resolve(&MountOptions::default()) {
            Ok(resolved) => {
                findings.push(Finding::ok(
                    "options",
                    "those of variables and files are valid",
                ));
                resolved.config
            }
            Err(error) => {
                findings.push(Finding::fail("options", error.to_string(), "correct it"));
                Config::default()
            }
        };
        if let Some(dir) = &self.dir {
            findings.extend(directory::check(dir, &config));
        }
        if self.json {
            print::json(out, &findings)?;
        } else {
            for finding in &findings {
                let verdict = match finding.verdict {
                    Verdict::Ok => "ok",
                    Verdict::Note => "note",
                    Verdict::Fail => "FAIL",
                };
                let mut text = format!("{verdict:<5} {:<12} {}", finding.check, finding.found);
                if let Some(cure) = &finding.cure {
                    text.push_str(": ");
                    text.push_str(cure);
                }
                writeln!(out, "{}", print::clean(&text))?;
            }
        }
        let failed = findings.iter().any(|f| f.verdict == Verdict::Fail);
        Ok(if failed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
