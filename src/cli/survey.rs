//! What is in a directory before it is served: whether it is a cache at all.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::config::Config;
use crate::daemon::mountpoint::{self, State};
use crate::format::engine::{Engines, HEAD_LEN, Kind, NameKind};
use crate::layout::{MET_XATTR, PRIVATE_DIR};

/// What is found in many an empty directory: it makes nothing of it.
const PLACEHOLDERS: [&str; 4] = [".gitkeep", ".keep", ".gitignore", "CACHEDIR.TAG"];

/// What a version control system keeps in the root of what it controls.
const VERSION_CONTROL: [&str; 7] = [".git", ".hg", ".svn", ".bzr", ".jj", ".fslckout", "_darcs"];

/// Directories of the system (Filesystem Hierarchy Standard 3.0), in which caches lie and which are none.
const SYSTEM: [&str; 23] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/tmp",
    "/usr/local",
];

/// The files of a directory, by what they are.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Files with an engine's name. Of the first of them the form was looked at too.
    pub(super) entries: u64,
    /// Files that are no engine's.
    pub(super) foreign: u64,
    /// One of them, from the directory.
    pub(super) example: Option<PathBuf>,
    /// Foreign files that are more than placeholders.
    others: u64,
}

impl Survey {
    /// Goes through `dir`, by names; forms are read until one is an entry's. What cannot be read is left out, and so
    /// are other filesystems.
    pub(super) fn of(dir: &Path, engines: &Engines) -> Self {
        let mut survey = Self::default();
        let Ok(device) = fs::metadata(dir).map(|status| status.dev()) else {
            return survey;
        };
        let mut found_one = false;
        let mut todo = vec![PathBuf::new()];
        while let Some(folder) = todo.pop() {
            let Ok(names) = fs::read_dir(dir.join(&folder)) else {
                continue;
            };
            for item in names.flatten() {
                let path = folder.join(item.file_name());
                let Ok(kind) = item.file_type() else { continue };
                if kind.is_dir() {
                    let is_own = folder.as_os_str().is_empty() && item.file_name() == PRIVATE_DIR;
                    let here = || item.metadata().is_ok_and(|status| status.dev() == device);
                    if !is_own && here() {
                        todo.push(path);
                    }
                } else if kind.is_file() {
                    let named = !matches!(engines.by_name(&path), NameKind::Foreign);
                    let known = named && (found_one || is_entry(engines, dir, &path));
                    found_one |= known;
                    survey.count(path, known);
                }
            }
        }
        survey
    }

    fn count(&mut self, path: PathBuf, known: bool) {
        if known {
            self.entries += 1;
            return;
        }
        self.foreign += 1;
        let name = path.file_name().unwrap_or_default();
        if !PLACEHOLDERS.iter().any(|placeholder| name == *placeholder) {
            self.others += 1;
            self.example = self.example.take().or(Some(path));
        } else if self.others == 0 {
            self.example = Some(path);
        }
    }

    /// One sentence about foreign files; `None`: there are none.
    pub(super) fn sentence(&self, dir: &Path) -> Option<String> {
        let example = self.example.as_ref()?.display();
        let dir = dir.display();
        Some(match self.foreign {
            1 => format!(
                "{dir} holds a file that is no cache entry, {example}: it is served, and never removed"
            ),
            count => format!(
                "{dir} holds {count} files that are no cache entries, such as {example}: they are served, and never removed"
            ),
        })
    }
}

fn is_entry(engines: &Engines, dir: &Path, path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(dir.join(path))
        .and_then(|file| file.take(HEAD_LEN as u64).read_to_end(&mut head));
    let kind = engines.recognise(path, &head);
    read.is_ok() && (kind.is_entry() || matches!(kind, Kind::Temporary(_)))
}

/// Why a directory is not served without `--adopt`; `None`: it is.
pub(super) fn objection(dir: &Path, survey: &Survey) -> Option<String> {
    place_objection(dir).or_else(|| {
        let was_served = rustix::fs::getxattr(dir, MET_XATTR, &mut [0_u8; 128][..]).is_ok();
        (survey.entries == 0 && survey.others > 0 && !was_served).then(|| {
            format!(
                "{} is no cache directory: it holds {} files that no template engine wrote, such as {}, and no cache \
                 entry; name the cache directory itself, or say --adopt",
                dir.display(),
                survey.foreign,
                survey.example.as_deref().unwrap_or(Path::new("?")).display()
            )
        })
    })
}

/// What is wrong with the place itself.
fn place_objection(dir: &Path) -> Option<String> {
    let shown = dir.display();
    let named = "name a directory of its own for the cache, or say --adopt";
    if dir == Path::new("/") {
        return Some(format!("/ is the root of everything: {named}"));
    }
    if SYSTEM.iter().any(|system| dir == Path::new(system)) {
        return Some(format!("{shown} belongs to the system: {named}"));
    }
    if is_home(dir) {
        return Some(format!("{shown} is a home directory: {named}"));
    }
    let control = VERSION_CONTROL
        .iter()
        .find(|name| fs::symlink_metadata(dir.join(name)).is_ok())?;
    Some(format!(
        "{shown} is under version control ({control} is in it): {named}"
    ))
}

/// Whether a directory is somebody's home: this user's, a person's, or one where homes usually are.
fn is_home(dir: &Path) -> bool {
    let is_same = |home: &Path| fs::canonicalize(home).is_ok_and(|home| home == dir);
    if dir.parent() == Some(Path::new("/home")) {
        return true;
    }
    if std::env::var_os("HOME").is_some_and(|home| is_same(Path::new(&home))) {
        return true;
    }
    // Services have homes too, which may well be their caches; people's numbers begin at 1000 (login.defs(5)).
    let users = fs::read("/etc/passwd").unwrap_or_default();
    users.split(|byte| *byte == b'\n').any(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let Some(uid) = fields
            .get(2)
            .and_then(|uid| std::str::from_utf8(uid).ok()?.parse::<u32>().ok())
        else {
            return false;
        };
        let is_person = uid == 0 || (1000..60_000).contains(&uid);
        is_person
            && fields.get(5).is_some_and(|home| {
                let home = std::os::unix::ffi::OsStrExt::from_bytes(home);
                !OsStr::is_empty(home) && is_same(Path::new(home))
            })
    })
}

/// Refuses to serve what is no cache, before a daemon is started. Returns a sentence about what else there is, for
/// the time when it is served: a command that fails says one sentence, why.
///
/// # Errors
/// A sentence that says what to do.
pub(super) fn guard(dir: &Path, config: &Config) -> anyhow::Result<Option<String>> {
    // A directory that is mounted already, or whose daemon has died, is somebody else's question.
    let here = match mountpoint::inspect(dir) {
        Ok(found) if found.state == State::Directory => Some(found.path),
        _ => None,
    };
    let kept = match &config.backing {
        Some(backing) => fs::canonicalize(backing).ok(),
        None => here.clone(),
    };
    if !config.adopt
        && config.backing.is_some()
        && let Some(objection) = here.as_deref().and_then(place_objection)
    {
        bail!(objection);
    }
    let Some(kept) = kept else { return Ok(None) };
    if !config.adopt
        && let Some(objection) = place_objection(&kept)
    {
        bail!(objection);
    }
    let survey = Survey::of(&kept, &Engines::new(config.pattern.clone()));
    if !config.adopt
        && let Some(objection) = objection(&kept, &survey)
    {
        bail!(objection);
    }
    Ok(survey.sentence(&kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Survey) {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let survey = Survey::of(dir.path(), &Engines::default());
        (dir, survey)
    }

    const ENTRY: (&str, &[u8]) = (
        "__kida_py314_a.html_0123456789abcdef.pyc",
        b"\x00KDA\x04\0\0\0\xe3...",
    );

    #[test]
    fn a_cache_may_have_other_files_beside_its_entries() {
        let (dir, survey) = survey(&[ENTRY, ("app.lock", b""), ("x/y.db", b"SQLite")]);
        assert_eq!((survey.entries, survey.foreign), (1, 2));
        assert_eq!(objection(dir.path(), &survey), None);
        let said = survey.sentence(dir.path()).unwrap();
        assert!(said.contains("2 files that are no cache entries"), "{said}");
    }

    #[test]
    fn a_directory_of_other_files_is_refused_and_an_empty_one_or_a_placeholder_is_not() {
        let (dir, templates) = survey(&[("a.html", b"hi"), (".gitkeep", b"")]);
        let said = objection(dir.path(), &templates).unwrap();
        assert!(
            said.contains("a.html") && said.contains("--adopt"),
            "{said}"
        );
        let (dir, named_alike) = survey(&[(ENTRY.0, b"a diary")]);
        assert!(objection(dir.path(), &named_alike).is_some());
        for files in [&[][..], &[(".gitkeep", &b""[..])], &[ENTRY]] {
            let (dir, survey) = survey(files);
            assert_eq!(objection(dir.path(), &survey), None, "{files:?}");
        }
    }

    #[test]
    fn places_that_are_no_cache_are_refused_whatever_is_in_them() {
        for place in ["/", "/etc", "/home/ada", "/tmp", "/root"] {
            let said = place_objection(Path::new(place)).unwrap();
            assert!(said.contains("--adopt"), "{said}");
        }
        for control in [".git", ".hg", ".svn"] {
            let (dir, _) = survey(&[ENTRY, (control, b"gitdir: elsewhere")]);
            let said = place_objection(dir.path()).unwrap();
            assert!(said.contains(control), "{said}");
        }
        let (dir, _) = survey(&[("repo/.git/config", b""), ("repo/cache/x", b"")]);
        assert_eq!(place_objection(&dir.path().join("repo/cache")), None);
        assert_eq!(place_objection(Path::new("/var/cache/app")), None);
    }
}
