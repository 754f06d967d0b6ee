//! Combinations of options that cannot be.

use std::collections::BTreeMap;
use std::time::Duration;

use super::OptionError;
use super::value::{show_size, show_time};
use crate::config::{Config, Origin};

/// Above this a burst would be no burst: an idle daemon uses no CPU.
const LONGEST_POLL: Duration = Duration::from_secs(1);

/// More event threads than this only take memory.
const MOST_THREADS: usize = 256;

type Origins = BTreeMap<&'static str, Origin>;

/// Changes a default that somebody's value contradicts: an entry has to fit the staging area and the
/// budget, and its use has to be noticed before it is found to be out of date.
pub(super) fn settle(config: &mut Config, origins: &Origins) {
    // What carries a cache is the supervisor's child.
    if config.remote.url.is_some() && !origins.contains_key("supervise") {
        config.supervise = true;
    }
    if !origins.contains_key("max-entry") {
        let limit = config.staging.min(config.max_size);
        config.max_entry = config.max_entry.min(limit);
    }
    if !origins.contains_key("superseded-grace") {
        let noticed = config.entry_timeout.saturating_mul(2);
        config.superseded_grace = config.superseded_grace.map(|grace| grace.max(noticed));
    }
}

/// Refuses what cannot work, before anything is mounted.
pub(super) fn check(config: &Config, origins: &Origins) -> Result<(), OptionError> {
    let from = |name: &'static str| origins.get(name).unwrap_or(&Origin::Default);
    let refuse = |message: String| Err(OptionError::Conflict(message));

    let sizes = [
        ("staging", config.staging),
        ("max-size", config.max_size),
        ("max-entries", config.max_entries),
        ("max-entry", config.max_entry),
    ];
    for (name, value) in sizes {
        if value == 0 {
            return refuse(format!(
                "{name} 0 (from {}) leaves no room for an entry; write a larger value, or --read-only to serve without writes",
                from(name)
            ));
        }
    }
    for (name, limit) in [("staging", config.staging), ("max-size", config.max_size)] {
        if config.max_entry > limit {
            return refuse(format!(
                "max-entry {} (from {}) is larger than {name} {} (from {}), so such an entry could never be stored; lower the first or raise the second",
                show_size(config.max_entry),
                from("max-entry"),
                show_size(limit),
                from(name),
            ));
        }
    }
    let ages = [
        ("superseded-grace", config.superseded_grace),
        ("orphaned-grace", config.orphaned_grace),
        ("foreign-age", config.foreign_age),
        ("max-age", config.max_age),
    ];
    for (name, age) in ages {
        if let Some(age) = age
            && config.entry_timeout >= age
        {
            return refuse(format!(
                "entry-timeout {} (from {}) is not shorter than {name} {} (from {}), so entries in use would be evicted; lower the first, raise the second or turn it off",
                show_time(config.entry_timeout),
                from("entry-timeout"),
                show_time(age),
                from(name),
            ));
        }
    }
    if config.sweep_interval.is_zero() {
        return refuse(format!(
            "sweep-interval 0 (from {}) would sweep without a pause; write a time such as 60s",
            from("sweep-interval")
        ));
    }
    if config.remote.url.is_some() {
        remote(config, from("remote"))?;
    }
    if config.threads == 0 || config.threads > MOST_THREADS {
        return refuse(format!(
            "threads {} (from {}) is not possible; write a number from 1 to {MOST_THREADS}",
            config.threads,
            from("threads")
        ));
    }
    if config.poll > LONGEST_POLL {
        return refuse(format!(
            "poll {} (from {}) would keep a CPU busy; write at most {}",
            show_time(config.poll),
            from("poll"),
            show_time(LONGEST_POLL)
        ));
    }
    Ok(())
}

/// A remote needs a name there, somebody to trust, and somebody to start its process.
fn remote(config: &Config, origin: &Origin) -> Result<(), OptionError> {
    let remote = &config.remote;
    let problem = if cfg!(not(feature = "remote")) {
        "cannot be used: this kidafs was built without remotes; install one that has them"
    } else if remote.namespace.is_none() {
        "needs --remote-namespace, a name for each application and configuration of its environment"
    } else if remote.trust.is_empty() && remote.sign_key.is_none() && !remote.unsigned {
        "needs --remote-trust with the public key of whoever pushes"
    } else if has_password(remote.url.as_deref().unwrap_or_default()) {
        "has a password, which everybody who lists processes could read; put it into the variable REDISCLI_AUTH"
    } else {
        return Ok(());
    };
    Err(OptionError::Conflict(format!(
        "remote (from {origin}) {problem}"
    )))
}

/// Whether a URL holds a password.
fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let place = rest.split('/').next().unwrap_or_default();
    place
        .rsplit_once('@')
        .is_some_and(|(user, _)| user.contains(':'))
}
