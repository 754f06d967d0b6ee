//! A daemon: a backing directory, served at a mount point until the mount's end.

mod told;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fuser::{Session, SessionACL};

use crate::clock::SystemClock;
use crate::config::{Config, Latency, ResolvedConfig};
use crate::daemon::backing::{self, Backing, BackingError, Sharing};
use crate::daemon::mount::{self, MountError, MountOptions};
use crate::daemon::role::Role;
use crate::daemon::seal_key::{self, SealKeyError};
use crate::daemon::serve::{self, Ended, ServeError, Service};
use crate::daemon::signals::{HangUp, Signals};
use crate::daemon::start::Start;
use crate::daemon::strict_path;
use crate::fuse::{Adapter, Notifier};
use crate::vfs::{self, About, Notices, Vfs};
use crate::wakeup::{Bursts, Readers};
use told::Teller;

/// Why nothing is, or was, served. Each is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The mount point.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The backing directory.
    #[error(transparent)]
    Backing(#[from] BackingError),
    /// The seal key.
    #[error(transparent)]
    SealKey(#[from] SealKeyError),
    /// The mount would cover a part of its own backing directory, and wait for itself.
    #[error(
        "{} lies in the backing directory {}: name a backing directory that does not hold the mount point",
        dir.display(), backing.display()
    )]
    Nested {
        /// The mount point.
        dir: PathBuf,
        /// The backing directory.
        backing: PathBuf,
    },
    /// Reading in the backing directory.
    #[error("cannot read the backing directory {}: {source}", path.display())]
    Read {
        /// The directory.
        path: PathBuf,
        /// What went wrong.
        source: vfs::Error,
    },
    /// The session with the kernel.
    #[error("cannot begin the session with the kernel: {0}")]
    Session(io::Error),
    /// The system.
    #[error("cannot start to serve: {0}")]
    System(#[from] io::Error),
    /// The end was not clean.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Serves `dir` with `options` from this process until the mount's end; in the background standard error goes to
/// `log` once the mount answers. Returns as soon as everything is
/// written; the caller is to end the process then.
///
/// # Errors
/// Before the mount answers nothing is left behind; see also [`serve::serve`].
pub fn serve(
    dir: &Path,
    options: &ResolvedConfig,
    log: Option<File>,
) -> Result<Ended, ServerError> {
    let config = &options.config;
    let dir = std::path::absolute(dir)?;
    strict_path::check(&dir)?;
    let mount_point = match mount::clear(&dir)? {
        Some(path) => path,
        None => {
            backing::create(&dir)?;
            std::fs::canonicalize(&dir)?
        }
    };
    let sharing = Sharing {
        read_only: config.read_only,
        allow_other: config.allow_other,
        trust_group: config.trust_group,
    };
    // Opened once: what is checked below is what is mounted over.
    let place = match config.backing {
        Some(_) => Some(mount::place(&mount_point)?),
        None => None,
    };
    let path = backing_path(config, &mount_point)?;
    if let Ok(real) = std::fs::canonicalize(&path)
        && real != mount_point
        && mount_point.starts_with(&real)
    {
        return Err(ServerError::Nested {
            dir: mount_point,
            backing: path,
        });
    }
    let mut backing = Backing::open(&path, sharing)?;
    let seals = match &config.seal_key {
        Some(file) => Some(seal_key::read(file, backing.path())?),
        None => None,
    };
    let about = About {
        mount_point: mount_point.to_string_lossy().into_owned(),
        backing: backing.path().to_string_lossy().into_owned(),
        settings: settings(options),
        started: Instant::now(),
    };

    let start = Start::begin()?;
    let signals = Signals::install(HangUp::for_role(start.role()))?;
    // From here on this process must not name the mount point again. Mounted before the directory is read:
    // engines wait meanwhile, where they would else write what nobody saw.
    backing.leave_plain();
    let (device, mounted) = mount::mount_on(
        place.as_ref().map_or(backing.directory(), OwnedFd::as_fd),
        &mount_point,
        &MountOptions {
            source: mount::source(&mount_point, config.backing.as_deref()),
            // By the kernel's refusal an engine could not even make the temporary file whose rename it would
            // forgive: what is refused is decided here.
            read_only: false,
            allow_other: config.allow_other,
        },
    )?;
    let (notices, queue) = mpsc::channel();
    let mut opened = backing.opened()?;
    opened.seals = seals;
    let vfs = Vfs::serve(
        opened,
        config.clone(),
        Arc::new(SystemClock),
        Notices::new(notices),
        about,
        None,
    );
    let vfs = Arc::new(vfs.map_err(|source| ServerError::Read {
        path: backing.path().to_owned(),
        source,
    })?);
    let bursts = Bursts::new(
        device.try_clone()?,
        config.poll,
        config.latency == Latency::Auto,
    );
    let bursts = Arc::new(bursts);
    let burst_end = bursts.start()?;
    let readers = Arc::new(Readers::new(config.threads));
    let watch = readers.start()?;
    let for_notices = device.try_clone()?;
    let adapter = Adapter::new(Arc::clone(&vfs), Arc::clone(&bursts), Arc::clone(&readers))?;
    vfs.supplement(adapter.numbers());
    let kernel = adapter.kernel();
    let session = Session::from_fd(adapter, device, SessionACL::All, session_options(&readers))
        .map_err(ServerError::Session)?;
    // Set once, here; nothing is committed before the session runs.
    let _ = kernel.set(session.notifier());
    let notifier = Notifier::start(session.notifier(), for_notices, queue)?;
    let workers = Workers::start(Arc::clone(&vfs))?;
    let teller = Teller::start(Arc::clone(&vfs), mount_point.display().to_string())?;
    if config.warm && Role::of_this_process() != Role::Background {
        warm(&mount_point)?;
    }
    let ended = serve::serve(
        mounted,
        start,
        log,
        signals,
        move || session.run(),
        &workers,
    );
    workers.stop();
    teller.stop();
    bursts.stop();
    readers.end();
    for thread in [burst_end, watch] {
        if thread.join().is_err() {
            log::error!("a thread panicked");
        }
    }
    drop(notifier);
    drop(backing);
    Ok(ended?)
}

/// Has another process read everything through the mount: this one must not. (`kidafs mount` does so itself
/// when the daemon goes to the background.) Until the session answers, its first access waits.
fn warm(mount_point: &Path) -> io::Result<()> {
    let mut reader = Command::new("/proc/self/exe")
        .arg("warm")
        .arg("--")
        .arg(mount_point)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let thread = std::thread::Builder::new().name("kidafs-warm".to_owned());
    thread.spawn(move || match reader.wait() {
        Ok(status) if status.success() => {}
        Ok(status) => log::warn!("not everything was loaded: {status}"),
        Err(error) => log::warn!("not everything was loaded: {error}"),
    })?;
    Ok(())
}

fn backing_path(config: &Config, mount_point: &Path) -> Result<PathBuf, ServerError> {
    let Some(given) = &config.backing else {
        return Ok(mount_point.to_owned());
    };
    let path = std::path::absolute(given)?;
    if !path.try_exists()? {
        backing::create(&path)?;
    }
    Ok(path)
}

fn session_options(readers: &Readers) -> fuser::Config {
    let mut options = fuser::Config::default();
    options.n_threads = Some(readers.threads());
    options
}

/// The options as they apply, each with its origin, as JSON.
fn settings(options: &ResolvedConfig) -> String {
    // String keys and plain structures, which serialise without fail.
    let mut json = serde_json::to_string(&options.settings).unwrap_or_default();
    json.push('\n');
    json
}

/// The threads beside the session's own.
struct Workers {
    vfs: Arc<Vfs>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    fn start(vfs: Arc<Vfs>) -> io::Result<Self> {
        let mut workers = Self {
            vfs,
            threads: Vec::new(),
        };
        workers.spawn("kidafs-persist", Vfs::run_persister)?;
        workers.vfs.look_at_sources()?;
        workers.spawn("kidafs-sweep", Vfs::run_sweeper)?;
        Ok(workers)
    }

    fn spawn(&mut self, name: &str, run: fn(&Vfs)) -> io::Result<()> {
        let vfs = Arc::clone(&self.vfs);
        let thread = std::thread::Builder::new().name(name.to_owned());
        self.threads.push(thread.spawn(move || run(&vfs))?);
        Ok(())
    }

    fn stop(self) {
        self.vfs.stop_persister();
        self.vfs.sweeper().stop();
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!("a thread panicked");
            }
        }
    }
}

impl Service for Workers {
    fn sweep(&self) {
        self.vfs.sweeper().ask();
    }

    fn flush(&self) -> io::Result<()> {
        self.vfs.note_use(Duration::ZERO);
        match self.vfs.persist_all().failed {
            0 => Ok(()),
            failed => Err(io::Error::other(format!(
                "{failed} files written in place are lost"
            ))),
        }
    }
}
