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
use parking_lot::Mutex;

use crate::clock::SystemClock;
use crate::config::{Config, Latency, ResolvedConfig};
use crate::daemon::backing::{self, Backing, BackingError, Sharing};
use crate::daemon::farewell::Lost;
use crate::daemon::inherited;
use crate::daemon::mount::{self, MountError, MountOptions};
use crate::daemon::role::Role;
use crate::daemon::seal_key::{self, SealKeyError};
use crate::daemon::serve::{self, Ended, Events, ServeError, Service};
use crate::daemon::signals::{HangUp, Signals};
use crate::daemon::start::Start;
use crate::daemon::strict_path;
use crate::fuse::{Adapter, Notifier};
use crate::stop::Stop;
use crate::vfs::{self, About, Notices, Vfs};
use crate::wakeup::{Bursts, Readers};
use told::Teller;

/// How often it is looked whether the end has begun while everything is loaded.
const WARM_STEP: Duration = Duration::from_millis(20);

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
        stop: Stop::default(),
    };

    let mut start = Start::begin()?;
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
    if config.confine {
        // Every thread that is started from here on has no more.
        inherited::drop_rights()?;
    }
    let stop = about.stop.clone();
    stop.with_end_of(device.try_clone()?);
    let events = Events::listen(signals, stop.clone())?;
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
    let vfs = match vfs {
        Ok(vfs) => Arc::new(vfs),
        Err(_) if stop.has_begun() => return Ok(serve::end_before_it_began(mounted, &mut start)),
        Err(source) => {
            return Err(ServerError::Read {
                path: backing.path().to_owned(),
                source,
            });
        }
    };
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
    let session = Session::from_fd(adapter, device, SessionACL::All, session_options(&readers));
    let session = match session {
        Ok(session) => session,
        Err(_) if stop.has_begun() => return Ok(serve::end_before_it_began(mounted, &mut start)),
        Err(error) => return Err(ServerError::Session(error)),
    };
    // Set once, here; nothing is committed before the session runs.
    let _ = kernel.set(session.notifier());
    let notifier = Notifier::start(session.notifier(), for_notices, queue)?;
    let workers = Workers::start(Arc::clone(&vfs))?;
    let teller = Teller::start(Arc::clone(&vfs), mount_point.display().to_string())?;
    if config.warm && Role::of_this_process() != Role::Background {
        warm(&mount_point, &stop)?;
    }
    let ended = serve::serve(mounted, start, log, events, move || session.run(), &workers);
    if let Some(lost) = workers.lost() {
        backing.leave_word(&lost);
    }
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
/// when the daemon goes to the background.) Until the session answers, its first access waits. It is killed when
/// the end begins.
fn warm(mount_point: &Path, stop: &Stop) -> io::Result<()> {
    let mut reader = Command::new("/proc/self/exe")
        .arg("warm")
        .arg("--")
        .arg(mount_point)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let stop = stop.clone();
    let thread = std::thread::Builder::new().name("kidafs-warm".to_owned());
    thread.spawn(move || {
        let ended = loop {
            match reader.try_wait() {
                Ok(None) if stop.has_begun() => {
                    let _ = reader.kill();
                    return reader.wait().map(|_| ());
                }
                // It ends when it ends; the daemon's end cannot be waited for together with it.
                Ok(None) => std::thread::sleep(WARM_STEP),
                Ok(Some(status)) => break Ok(status),
                Err(error) => break Err(error),
            }
        };
        match ended {
            Ok(status) if status.success() => {}
            Ok(status) => log::warn!("not everything was loaded: {status}"),
            Err(error) => log::warn!("not everything was loaded: {error}"),
        }
        Ok(())
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
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    fn start(vfs: Arc<Vfs>) -> io::Result<Self> {
        let workers = Self {
            vfs,
            threads: Mutex::default(),
        };
        workers.spawn("kidafs-persist", Vfs::run_persister)?;
        workers.vfs.look_at_sources()?;
        workers.spawn("kidafs-sweep", Vfs::run_sweeper)?;
        Ok(workers)
    }

    fn spawn(&self, name: &str, run: fn(&Vfs)) -> io::Result<()> {
        let vfs = Arc::clone(&self.vfs);
        let thread = std::thread::Builder::new().name(name.to_owned());
        self.threads.lock().push(thread.spawn(move || run(&vfs))?);
        Ok(())
    }

    /// What could not be written; to be asked once the service has ended.
    fn lost(&self) -> Option<Lost> {
        Lost::of(&self.vfs.unwritten())
    }
}

impl Service for Workers {
    fn sweep(&self) {
        self.vfs.sweeper().ask();
    }

    fn stop(&self) {
        self.vfs.stop();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                log::error!("a thread panicked");
            }
        }
    }

    fn flush(&self) -> io::Result<()> {
        self.vfs.note_use(Duration::ZERO);
        self.vfs.persist_all();
        match self.lost() {
            None => Ok(()),
            Some(lost) => Err(io::Error::other(format!("{lost} are lost"))),
        }
    }
}
