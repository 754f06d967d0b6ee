//! `kidafs inspect`: what is in one entry.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::listing::{self, Name};
use super::{Outcome, Output, print};
use crate::format::marshal::{self, CodeInfo};
use crate::format::{Engine, Engines, Entry, File, Fingerprint, Format, Pattern, SourceFile};

/// More than an entry of any engine has: a sparse file could say that it has any size.
const MOST_BYTES: u64 = 64 << 20;

/// Show what is in an entry, without ever executing it
#[derive(Args)]
pub(super) struct Inspect {
    /// The entry's file
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Entry names [default: KIDAFS_PATTERN]
    #[arg(long, value_name = "P")]
    pattern: Option<Pattern>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Facts {
    template: Option<String>,
    version: Option<String>,
    source_hash: Option<String>,
    context_hash: Option<String>,
    format: Format,
    size_bytes: usize,
    sections: Vec<Part>,
    warnings: Option<serde_json::Value>,
    code: CodeInfo,
}

#[derive(Serialize)]
struct Part {
    section: crate::format::Section,
    size_bytes: usize,
}

impl Inspect {
    pub(super) fn run(self, out: Output<'_>) -> Outcome {
        let file = self.file.display();
        let mut content = Vec::new();
        let mut mtime = 0;
        listing::open_quietly(&self.file)
            .and_then(|file| {
                mtime = file.metadata()?.mtime();
                file.take(MOST_BYTES + 1).read_to_end(&mut content)
            })
            .with_context(|| format!("cannot read {file}"))?;
        if content.len() as u64 > MOST_BYTES {
            bail!("{file} is larger than 64 MiB, which no entry is: name the file of an entry");
        }
        if let Some(other) = self.of_another_engine(&content, mtime) {
            return other.show(out, self.json);
        }
        let entry = Entry::parse(&content).with_context(|| format!("{file} is not an entry"))?;
        let code = marshal::describe(entry.code)
            .with_context(|| format!("the code section of {file} does not unmarshal"))?;
        let pattern = match self.pattern {
            Some(pattern) => pattern,
            None => {
                super::options::resolve(&super::options::MountOptions::default())?
                    .config
                    .pattern
            }
        };
        let name = Name::parse(&pattern, &self.file);
        let facts = Facts {
            template: name.as_ref().map(|name| name.template.clone()),
            version: name.as_ref().map(|name| name.version.clone()),
            source_hash: name.as_ref().map(|name| name.source_hash.clone()),
            context_hash: name.and_then(|name| name.context_hash),
            format: entry.format,
            size_bytes: content.len(),
            sections: sections(&entry),
            warnings: warnings(&entry),
            code,
        };
        if self.json {
            print::json(out, &facts)?;
        } else {
            show(out, &facts)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What an entry of Jinja2, Mako or importlib says of itself.
    fn of_another_engine(&self, content: &[u8], mtime: i64) -> Option<Other> {
        let identity = Engines::new(Pattern::default()).identify(&File {
            path: &self.file,
            content,
            mtime,
        })?;
        (identity.engine != Engine::Kida).then(|| Other {
            engine: identity.engine.as_str(),
            version: identity.version,
            name: identity.name,
            source: identity.source.map(|source| match source {
                SourceFile::At(path) | SourceFile::InCache(path) | SourceFile::Relative(path) => {
                    path.to_string_lossy().into_owned()
                }
            }),
            fingerprint: identity.fingerprint.map(told),
            size_bytes: content.len(),
        })
    }
}

/// An entry of another engine than kida.
#[derive(Serialize)]
struct Other {
    engine: &'static str,
    version: String,
    name: String,
    source: Option<String>,
    fingerprint: Option<String>,
    size_bytes: usize,
}

impl Other {
    fn show(&self, out: Output<'_>, json: bool) -> Outcome {
        if json {
            print::json(out, self)?;
            return Ok(ExitCode::SUCCESS);
        }
        for (name, value) in [
            ("engine", Some(self.engine)),
            ("version", Some(&*self.version)),
            ("template", Some(&*self.name)),
            ("source", self.source.as_deref()),
            ("fingerprint", self.fingerprint.as_deref()),
        ] {
            writeln!(out, "{name:<14} {}", print::clean(value.unwrap_or("-")))?;
        }
        writeln!(out, "{:<14} {} B", "size", self.size_bytes)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What an entry tells about its source, for people to read.
fn told(fingerprint: Fingerprint) -> String {
    match fingerprint {
        Fingerprint::Sha256(hex) => format!("sha256 {hex}"),
        Fingerprint::Sha1(hex) => format!("sha1 {hex}"),
        Fingerprint::Generated { magic, mtime } => {
            format!("generator {magic}, the module's own time {mtime}")
        }
        Fingerprint::MtimeSize { mtime, size } => {
            format!("source of {size} B, modified at {mtime}")
        }
        Fingerprint::Keyed { hash, .. } => {
            let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("siphash {hex}")
        }
    }
}

fn sections(entry: &Entry<'_>) -> Vec<Part> {
    use crate::format::Section;
    [
        (Section::Code, Some(entry.code)),
        (Section::Precomputed, entry.precomputed),
        (Section::Warnings, entry.warnings),
        (Section::Ast, entry.ast),
    ]
    .into_iter()
    .filter_map(|(section, bytes)| {
        Some(Part {
            section,
            size_bytes: bytes?.len(),
        })
    })
    .collect()
}

/// The warnings as JSON; as a text where they are none.
fn warnings(entry: &Entry<'_>) -> Option<serde_json::Value> {
    let bytes = entry.warnings?;
    let value = serde_json::from_slice(bytes);
    Some(value.unwrap_or_else(|_| String::from_utf8_lossy(bytes).into()))
}

fn show(out: Output<'_>, facts: &Facts) -> io::Result<()> {
    let line = |out: Output<'_>, name: &str, value: &str| {
        writeln!(out, "{name:<14} {}", print::clean(value))
    };
    for (name, value) in [
        ("template", &facts.template),
        ("version", &facts.version),
        ("source hash", &facts.source_hash),
        ("context hash", &facts.context_hash),
    ] {
        line(out, name, value.as_deref().unwrap_or("-"))?;
    }
    line(out, "format", &facts.format.to_string())?;
    line(out, "size", &format!("{} B", facts.size_bytes))?;
    for part in &facts.sections {
        line(
            out,
            &format!("  {}", part.section),
            &format!("{} B", part.size_bytes),
        )?;
    }
    match &facts.warnings {
        Some(serde_json::Value::Array(warnings)) => {
            for warning in warnings {
                line(out, "warning", &warning.to_string())?;
            }
        }
        Some(other) => line(out, "warning", &other.to_string())?,
        None => {}
    }
    code(out, &facts.code)
}

/// Describes a code object and the functions within it, outermost first.
fn code(out: Output<'_>, outermost: &CodeInfo) -> io::Result<()> {
    let mut waiting = vec![(0, outermost)];
    while let Some((depth, info)) = waiting.pop() {
        let indent = "  ".repeat(depth);
        writeln!(
            out,
            "{indent}code {} ({}, line {}), {} B of bytecode",
            print::clean(&info.qualname),
            print::clean(&info.filename),
            info.first_line,
            info.code_len
        )?;
        if !info.flag_names.is_empty() {
            writeln!(out, "{indent}  flags: {}", info.flag_names.join(", "))?;
        }
        for (title, items) in [
            ("locals", &info.locals),
            ("cells", &info.cells),
            ("free", &info.free),
            ("names", &info.names),
            ("constants", &info.constants),
        ] {
            if !items.is_empty() {
                writeln!(
                    out,
                    "{indent}  {title}: {}",
                    print::clean(&items.join(", "))
                )?;
            }
        }
        if info.truncated {
            writeln!(out, "{indent}  (and more)")?;
        }
        waiting.extend(info.functions.iter().rev().map(|inner| (depth + 1, inner)));
    }
    Ok(())
}
