//! The files that entries were made of, looked at without trust.
//!
//! A path comes out of an entry, so whoever may write entries chooses it. It is looked at with the rights of the cache
//! directory's owner and never root's; only a regular file of at most [`LARGEST`] is opened, never one that would
//! block, never by a link that leads out of its folder; what is seen is compared and told to nobody. All that is done
//! by a thread of its own, for which nobody waits longer than [`PATIENCE`]: a share that hangs holds up nothing else.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::format::{Digests, Fingerprint, Mtime, SourceState};

/// The largest source that is looked at, in bytes.
pub const LARGEST: u64 = 16 << 20;

/// How long a sweep waits for what is seen; what comes later is the next one's.
const PATIENCE: Duration = Duration::from_secs(5);

/// Filesystems whose files are not files (linux/magic.h): proc, sysfs, debugfs, tracefs, cgroup, cgroup2, securityfs,
/// bpf, pstore, devpts.
const UNREAL: [u64; 10] = [
    0x9fa0,
    0x6265_6572,
    0x6462_6720,
    0x7472_6163,
    0x0027_e0eb,
    0x6367_7270,
    0x7363_6673,
    0xcafe_4a11,
    0x6165_676c,
    0x1cd1,
];

/// A source to be looked at, and what it is to be compared with.
#[derive(Debug, Clone)]
pub struct Question {
    /// Absolute.
    pub path: PathBuf,
    /// Of the entries that were made of it.
    pub wanted: Vec<Fingerprint>,
}

/// What was seen of a source.
#[derive(Debug, Clone)]
pub enum Seen {
    /// It is so.
    As(SourceState),
    /// Its folder is there, and it is not.
    Gone,
    /// Nothing.
    Nothing,
}

/// The thread that looks.
#[derive(Debug)]
pub struct Looker {
    asked: Sender<Vec<Question>>,
    answers: Receiver<Vec<(PathBuf, Seen)>>,
    waiting: bool,
}

impl Looker {
    /// Starts the thread, which looks with the rights of user `uid` and group `gid` if this process is root's; below
    /// `avoided` nothing is ever looked at. It ends when this is dropped.
    ///
    /// # Errors
    /// That of the system, if it has no room for a thread.
    pub fn start(uid: u32, gid: u32, avoided: PathBuf) -> std::io::Result<Self> {
        let (asked, questions) = channel::<Vec<Question>>();
        let (answer, answers) = channel();
        std::thread::Builder::new()
            .name("kidafs-sources".to_owned())
            .spawn(move || {
                // Programs' hits come first: nobody waits for what is found here. (0, for itself, is the calling
                // thread on Linux: setpriority(2).)
                if let Err(error) = rustix::process::setpriority_process(None, 10) {
                    log::debug!("sources are looked at with the usual priority: {error}");
                }
                if let Err(error) = give_up_rights(uid, gid) {
                    log::warn!(
                        "sources are not looked at: root's rights cannot be given up ({error})"
                    );
                    return;
                }
                let mut known = HashMap::new();
                for questions in questions {
                    if answer
                        .send(look_at_all(&mut known, questions, &avoided))
                        .is_err()
                    {
                        break;
                    }
                }
            })?;
        Ok(Self {
            asked,
            answers,
            waiting: false,
        })
    }

    /// What is seen of these; `None`: not yet, or never.
    pub fn ask(&mut self, questions: Vec<Question>) -> Option<Vec<(PathBuf, Seen)>> {
        if !self.waiting {
            self.asked.send(questions).ok()?;
            self.waiting = true;
        }
        let seen = self.answers.recv_timeout(PATIENCE).ok()?;
        self.waiting = false;
        Some(seen)
    }
}

/// For this thread only. Root itself is left as a user among others: it reads what its own files' modes let it.
fn give_up_rights(uid: u32, gid: u32) -> rustix::io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    rustix::thread::set_thread_groups(&[])?;
    if uid != 0 {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )
}

/// What was seen the last time, and of which state of the file.
struct Known {
    state: State,
    wanted: Vec<Fingerprint>,
    seen: SourceState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    device: u64,
    inode: u64,
    size: i64,
    mtime: (i64, u64),
    ctime: (i64, u64),
}

impl State {
    #[allow(
        clippy::unnecessary_cast,
        reason = "the fields' types differ between machines"
    )]
    fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: stat.st_size as i64,
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as u64),
            ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as u64),
        }
    }
}

fn look_at_all(
    known: &mut HashMap<PathBuf, Known>,
    questions: Vec<Question>,
    avoided: &Path,
) -> Vec<(PathBuf, Seen)> {
    let mut before = std::mem::take(known);
    let mut answers = Vec::with_capacity(questions.len());
    for Question { path, wanted } in questions {
        let last = before.remove(&path);
        let seen = match look(&path, &wanted, last, avoided) {
            Ok(now) => {
                let seen = Seen::As(now.seen.clone());
                known.insert(path.clone(), now);
                seen
            }
            Err(Errno::NOENT) => Seen::Gone,
            Err(_) => Seen::Nothing,
        };
        answers.push((path, seen));
    }
    answers
}

/// Looks at one file. ENOENT: its folder is there and it is not; any other error: nothing is known.
fn look(
    path: &Path,
    wanted: &[Fingerprint],
    last: Option<Known>,
    avoided: &Path,
) -> rustix::io::Result<Known> {
    if path.starts_with(avoided) || !path.is_absolute() {
        return Err(Errno::XDEV);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // A folder that is gone tells nothing: it may be another machine's, or another release's.
    let folder = rustix::fs::open(folder, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOENT => Errno::NOTDIR,
        error => error,
    })?;
    let is_real = |file: &dyn AsFd| -> rustix::io::Result<()> {
        let kind = rustix::fs::fstatfs(file.as_fd())?.f_type as u64;
        if UNREAL.contains(&kind) {
            return Err(Errno::XDEV);
        }
        Ok(())
    };
    is_real(&folder)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let open = |flags: OFlags| {
        rustix::fs::openat2(
            &folder,
            name,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
    };
    let found = match open(OFlags::PATH) {
        // A link that leads to nothing is not a source that is gone.
        Err(Errno::NOENT)
            if rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() =>
        {
            return Err(Errno::LOOP);
        }
        found => found?,
    };
    let stat = rustix::fs::fstat(&found)?;
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || size > LARGEST {
        return Err(Errno::INVAL);
    }
    is_real(&found)?;
    let state = State::of(&stat);
    if let Some(mut last) = last
        && last.state == state
        && wanted.iter().all(|one| last.wanted.contains(one))
    {
        last.wanted = wanted.to_vec();
        return Ok(last);
    }
    let digests = if wanted.iter().any(Fingerprint::needs_content) {
        let file = open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        if State::of(&rustix::fs::fstat(&file)?) != state {
            return Err(Errno::AGAIN);
        }
        Some(Digests::of(&read(file)?, wanted))
    } else {
        None
    };
    Ok(Known {
        state,
        wanted: wanted.to_vec(),
        seen: SourceState {
            mtime: Mtime {
                seconds: state.mtime.0,
                nanos: u32::try_from(state.mtime.1).unwrap_or(0),
            },
            size,
            digests,
        },
    })
}

/// No more than [`LARGEST`], whatever the file has grown to.
fn read(file: rustix::fd::OwnedFd) -> rustix::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut content = Vec::new();
    let read = std::fs::File::from(file)
        .take(LARGEST + 1)
        .read_to_end(&mut content);
    match read {
        Ok(size) if size as u64 <= LARGEST => Ok(content),
        Ok(_) => Err(Errno::FBIG),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn ask(looker: &mut Looker, path: &Path) -> Seen {
        let questions = vec![Question {
            path: path.to_owned(),
            wanted: vec![Fingerprint::Sha256("0123456789abcdef".to_owned())],
        }];
        let mut seen = looker.ask(questions).expect("an answer in time");
        seen.remove(0).1
    }

    fn looker(avoided: &Path) -> Looker {
        Looker::start(0, 0, avoided.to_owned()).unwrap()
    }

    #[test]
    fn a_file_is_seen_and_so_is_that_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        // Looked at by nobody, if this is root.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.path(), mode).unwrap();
        let mut looker = looker(Path::new("/nowhere"));
        let path = dir.path().join("page.html");
        assert!(matches!(ask(&mut looker, &path), Seen::Gone));
        fs::write(&path, b"hello").unwrap();
        for _ in 0..2 {
            match ask(&mut looker, &path) {
                Seen::As(state) => assert_eq!(state.size, 5),
                seen => panic!("{seen:?}"),
            }
        }
        assert!(matches!(
            ask(&mut looker, &dir.path().join("no/page.html")),
            Seen::Nothing
        ));
    }

    #[test]
    fn what_is_no_ordinary_file_of_its_folder_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.path(), mode).unwrap();
        let at = |name: &str| dir.path().join(name);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("fifo"),
            FileType::Fifo,
            Mode::from_raw_mode(0o666),
            0,
        )
        .unwrap();
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("folder/secret"), b"s").unwrap();
        for (link, target) in [
            ("loop", "loop"),
            ("out", "/etc/passwd"),
            ("up", "../x"),
            ("nothing", "gone"),
            ("device", "/dev/zero"),
            ("memory", "/proc/self/mem"),
        ] {
            std::os::unix::fs::symlink(target, at(link)).unwrap();
        }
        let sparse = fs::File::create(at("sparse")).unwrap();
        sparse.set_len(100 << 30).unwrap();
        let avoided = at("mount");
        fs::create_dir(&avoided).unwrap();
        fs::write(avoided.join("a"), b"a").unwrap();
        let mut looker = looker(&avoided);
        let mut paths: Vec<PathBuf> = [
            "fifo", "folder", "loop", "out", "up", "nothing", "device", "memory", "sparse",
            "mount/a",
        ]
        .iter()
        .map(|name| at(name))
        .collect();
        for path in [
            "/dev/zero",
            "/proc/self/mem",
            "/proc/self/environ",
            "/sys/kernel/uevent_seqnum",
            "/",
            "x",
        ] {
            paths.push(path.into());
        }
        paths.push(
            std::ffi::OsString::from_vec([b"/".to_vec(), vec![b'a'; 1 << 20]].concat()).into(),
        );
        for path in paths {
            let seen = ask(&mut looker, &path);
            assert!(matches!(seen, Seen::Nothing), "{path:.60?}: {seen:?}");
        }
        if rustix::process::geteuid().is_root() {
            fs::write(at("private"), b"p").unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(at("private"), mode).unwrap();
            std::os::unix::fs::chown(at("private"), Some(4001), Some(4001)).unwrap();
            assert!(matches!(ask(&mut looker, &at("private")), Seen::Nothing));
        }
    }
}
