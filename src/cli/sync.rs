//! `kidafs sync`: push and pull for as long as it lives.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use rustix::process::{Resource, Rlimit, Signal};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use super::remote_options::{
    Reached, RemoteOptions, SignOptions, engines, signing_key, trust_of_signer, trust_of_taker,
    versions,
};
use super::target::Target;
use super::{Outcome, Output};
use crate::config::Config;
use crate::format::{Pattern, VersionTag};
use crate::remote::pull::Puller;
use crate::remote::push::{Pusher, host_name};
use crate::remote::state::State;
use crate::remote::store::Canceller;
use crate::remote::sync::{Event, LAST_PUSH, Said, Settings, Sync};

/// Push what is committed to a cache, and pull what others pushed, for as long as this command lives
#[derive(Args)]
pub(super) struct SyncCommand {
    /// The cache: a mount point or a plain directory, which is created if it is missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// How often to pull [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    interval: Option<Duration>,

    /// Only push
    #[arg(long, conflicts_with = "pull_only")]
    push_only: bool,

    /// Only pull, also with a key
    #[arg(long)]
    pull_only: bool,

    /// Only entries of this version; once for each [default: those in use in DIR, or all if it is empty]
    #[arg(long, value_name = "TAG")]
    version_tag: Vec<VersionTag>,

    /// Entry names [default: the mount's, or KIDAFS_PATTERN]
    #[arg(long, value_name = "P")]
    pattern: Option<Pattern>,

    /// This is the child of a mount's supervisor, which hears on standard output of the first pull
    #[arg(long, hide = true)]
    child: bool,

    #[command(flatten)]
    sign: SignOptions,

    #[command(flatten)]
    remote: RemoteOptions,
}

/// The most memory that a hostile remote can make this process take, in bytes.
const MOST_MEMORY: u64 = 1 << 30;

impl SyncCommand {
    pub(super) fn run(self, _out: Output<'_>) -> Outcome {
        if self.child {
            // Nobody would end it otherwise, should the supervisor be killed.
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        }
        // Installed before anything is begun, so that a signal always means the same.
        let signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
        limit_memory();
        let mut config = self.sign.onto(self.remote.resolve()?);
        if let Some(interval) = self.interval {
            config.interval = interval;
        }
        if config.interval < Duration::from_millis(100) {
            bail!("the interval is too short: write at least 100ms");
        }
        let pushes = !self.pull_only && (config.sign_key.is_some() || config.unsigned);
        if self.push_only && !pushes {
            signing_key(&config)?;
        }
        let key = if pushes { signing_key(&config)? } else { None };
        let trust = if pushes {
            trust_of_signer(&config, key.as_ref())?
        } else {
            trust_of_taker(&config)?
        };
        let versions = versions(self.version_tag, &config)?;
        let interval = config.interval;
        let reached = Reached::open(config, 0)?;
        let target = Target::create(&self.dir)?;
        let engines = engines(&target, self.pattern)?;
        let settings = Settings {
            dir: std::path::absolute(&self.dir)
                .with_context(|| format!("cannot make {} absolute", self.dir.display()))?,
            engines: engines.clone(),
            interval,
            pusher: pushes.then(|| Pusher {
                key,
                versions: versions.clone(),
                host: host_name(),
            }),
            pulls: !self.push_only,
        };
        let catalogue = reached.catalogue(trust, engines);
        let sync = Sync::new(settings, &reached.remote, catalogue, Puller::new(versions));
        listen(signals, sync.sender(), reached.remote.canceller())?;
        let child = self.child;
        let mut ready = false;
        sync.run(|said, state| {
            if child {
                if said == Said::Pulled {
                    // A supervisor that has gone ends this process by a signal.
                    let _ = writeln!(io::stdout(), "pulled");
                }
                return;
            }
            notify(state, &mut ready);
        });
        if !child {
            let _ = sd_notify::notify(&[NotifyState::Stopping]);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The arguments with which the supervisor of a mount on `dir` starts this command.
pub(super) fn child_arguments(dir: &Path, config: &Config) -> Vec<OsString> {
    let remote = &config.remote;
    let mut arguments: Vec<OsString> = ["sync", "--child"].map(OsString::from).into();
    let mut add = |name: &str, value: &OsStr| {
        let mut argument = OsString::from(format!("--{name}="));
        argument.push(value);
        arguments.push(argument);
    };
    let time = |time: Duration| humantime::format_duration(time).to_string();
    let texts = [
        ("remote", &remote.url),
        ("namespace", &remote.namespace),
        ("endpoint", &remote.endpoint),
        ("region", &remote.region),
        ("path-style", &remote.path_style.map(|on| on.to_string())),
        ("timeout", &Some(time(remote.timeout))),
        ("connect-timeout", &Some(time(remote.connect_timeout))),
        ("interval", &Some(time(remote.interval))),
        ("expire", &remote.expire.map(time)),
        ("pattern", &Some(config.pattern.to_string())),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            add(name, value.as_ref());
        }
    }
    for (name, values) in [
        ("trust", &remote.trust),
        ("version-tag", &remote.version_tags),
        ("remote-option", &remote.further),
    ] {
        for value in values {
            add(name, value.as_ref());
        }
    }
    for (name, path) in [("sign-key", &remote.sign_key), ("ca-file", &remote.ca_file)] {
        if let Some(path) = path {
            add(name, path.as_os_str());
        }
    }
    if remote.unsigned {
        arguments.push("--unsigned".into());
    }
    arguments.push("--".into());
    arguments.push(dir.into());
    arguments
}

/// Tells the service manager, if there is one.
fn notify(state: &State, ready: &mut bool) {
    let status = match &state.last_error {
        Some(error) => error.clone(),
        None => format!(
            "{} entries pulled, {} pushed, {} rejected",
            state.pulled.entries,
            state.pushed.entries,
            state.rejected.total()
        ),
    };
    let mut words = vec![NotifyState::Status(&status)];
    // A remote that is away must not keep a system from starting.
    if !std::mem::replace(ready, true) {
        words.push(NotifyState::Ready);
    }
    let _ = sd_notify::notify(&words);
}

/// Passes signals on: the first one that ends lets what is under way come to its end for a while, the second does not.
fn listen(
    mut signals: signal_hook::iterator::Signals,
    events: Sender<Event>,
    canceller: Canceller,
) -> io::Result<()> {
    std::thread::Builder::new()
        .name("kidafs-signals".to_owned())
        .spawn(move || {
            let mut ending = false;
            for signal in signals.forever() {
                if matches!(signal, SIGHUP | SIGUSR1) {
                    let _ = events.send(Event::Now);
                } else if std::mem::replace(&mut ending, true) {
                    canceller.cancel();
                } else {
                    let _ = events.send(Event::End);
                    let canceller = canceller.clone();
                    let _ = std::thread::Builder::new().spawn(move || {
                        std::thread::sleep(LAST_PUSH);
                        canceller.cancel();
                        // A directory that hangs cannot be cancelled.
                        std::thread::sleep(LAST_PUSH);
                        std::process::exit(1);
                    });
                }
            }
        })?;
    Ok(())
}

/// Has this process end, rather than the host swap, should a remote send without an end.
fn limit_memory() {
    let limit = Rlimit {
        current: Some(MOST_MEMORY),
        maximum: Some(MOST_MEMORY),
    };
    // Where the system has a lower one, that stays.
    let _ = rustix::process::setrlimit(Resource::Data, limit);
}
