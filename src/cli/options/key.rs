//! The table of options: name, help, how a value is read and shown. Everything else is derived from
//! it: the arguments, the variables, the file, `-o`, and the daemon's own arguments.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::value::{self, Problem};
use crate::config::{Config, Durability, Latency};
use crate::format::Pattern;

/// An option of a mount.
pub(crate) struct Key {
    /// As on the command line, without the dashes.
    pub(crate) name: &'static str,
    /// What stands for the value in the help; `None`: a switch.
    pub(crate) value_name: Option<&'static str>,
    /// One line.
    pub(crate) help: &'static str,
    /// Reads a value into the configuration.
    pub(super) set: fn(&mut Config, &OsStr) -> Result<(), Problem>,
    /// The value as `set` reads it; `None`: there is none.
    pub(super) show: fn(&Config) -> Option<OsString>,
}

impl Key {
    /// The environment variable's name.
    pub(super) fn variable(&self) -> String {
        format!(
            "KIDAFS_{}",
            self.name.to_ascii_uppercase().replace('-', "_")
        )
    }

    /// Whether the value is a name in the filesystem.
    pub(super) fn is_path(&self) -> bool {
        [BACKING, SEAL_KEY, LOG_FILE].contains(&self.name)
    }

    /// The option of a name, written with dashes or with underscores.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        let name = name.replace('_', "-");
        KEYS.iter().find(|key| key.name == name)
    }
}

/// The option that names where to log to.
pub(super) const LOG_FILE: &str = "log-file";

/// The option that is on by default, and can be taken back by a name of its own.
pub(super) const SUPERVISE: &str = "supervise";
pub(super) const NO_SUPERVISE: &str = "no-supervise";

/// The option whose value is a path.
pub(super) const BACKING: &str = "backing";

/// The other one.
const SEAL_KEY: &str = "seal-key";

const DURABILITIES: [(&str, Durability); 3] = [
    ("async", Durability::Async),
    ("crash", Durability::Crash),
    ("power", Durability::Power),
];

const SOURCES: [(&str, bool); 2] = [("auto", true), ("off", false)];

const LATENCIES: [(&str, Latency); 2] = [("auto", Latency::Auto), ("off", Latency::Off)];

/// An entry of the table whose value is of a kind with a reader and a writer.
macro_rules! key {
    ($name:literal, $field:ident, $read:expr, $show:expr, $value_name:expr, $help:literal) => {
        Key {
            name: $name,
            value_name: $value_name,
            help: $help,
            set: |config, text| {
                config.$field = $read(value::text(text)?)?;
                Ok(())
            },
            show: |config| Some($show(config.$field).into()),
        }
    };
}

macro_rules! size {
    ($name:literal, $field:ident, $help:literal) => {
        key!(
            $name,
            $field,
            value::size,
            value::show_size,
            Some("SIZE"),
            $help
        )
    };
}

macro_rules! age {
    ($name:literal, $field:ident, $help:literal) => {
        key!(
            $name,
            $field,
            value::age,
            value::show_age,
            Some("TIME"),
            $help
        )
    };
}

macro_rules! switch {
    ($name:literal, $field:ident, $help:literal) => {
        key!(
            $name,
            $field,
            value::switch,
            |on: bool| on.to_string(),
            None,
            $help
        )
    };
}

/// A text about the remote.
macro_rules! text {
    ($name:literal, $field:ident, $value_name:expr, $help:literal) => {
        Key {
            name: $name,
            value_name: $value_name,
            help: $help,
            set: |config, text| {
                config.remote.$field = Some(value::text(text)?.to_owned());
                Ok(())
            },
            show: |config| Some(config.remote.$field.as_ref()?.into()),
        }
    };
}

/// Several texts about the remote, with a comma between them.
macro_rules! list {
    ($name:literal, $field:ident, $value_name:expr, $help:literal) => {
        Key {
            name: $name,
            value_name: $value_name,
            help: $help,
            set: |config, text| {
                config.remote.$field = value::list(value::text(text)?);
                Ok(())
            },
            show: |config| {
                let list = config.remote.$field.join(",");
                Some(list.into()).filter(|list: &OsString| !list.is_empty())
            },
        }
    };
}

/// A time that is about the remote.
macro_rules! span {
    ($name:literal, $field:ident, $help:literal) => {
        Key {
            name: $name,
            value_name: Some("TIME"),
            help: $help,
            set: |config, text| {
                config.remote.$field = value::time(value::text(text)?)?;
                Ok(())
            },
            show: |config| Some(value::show_time(config.remote.$field).into()),
        }
    };
}

/// Every option of a mount, in the order of the help.
pub(crate) static KEYS: [Key; 46] = [
    Key {
        name: BACKING,
        value_name: Some("DIR"),
        help: "Where entries are kept [default: the mount point itself]",
        set: |config, text| {
            config.backing = Some(PathBuf::from(text));
            Ok(())
        },
        show: |config| {
            let path = config.backing.as_ref()?;
            Some(path.clone().into_os_string())
        },
    },
    size!(
        "memory",
        memory,
        "Content kept in the memory tier; 0 for none"
    ),
    size!(
        "staging",
        staging,
        "Uncommitted content; beyond it a write fails with ENOSPC"
    ),
    size!(
        "max-size",
        max_size,
        "Disk budget; beyond it entries are evicted"
    ),
    key!(
        "max-entries",
        max_entries,
        value::count,
        |n: u64| n.to_string(),
        Some("N"),
        "Number of entries; beyond it entries are evicted"
    ),
    size!(
        "max-entry",
        max_entry,
        "Size of one entry; beyond it a write fails with EFBIG. Unless set, it is lowered to --staging and --max-size"
    ),
    age!(
        "max-age",
        max_age,
        "Evict what was neither committed nor looked up for so long; or off"
    ),
    age!(
        "superseded-grace",
        superseded_grace,
        "Evict what its source has outdated when it was not looked up for so long since (12 times as long where the source cannot be seen); or off"
    ),
    key!(
        "sources",
        sources,
        |text| value::word(text, &SOURCES),
        |this| value::show_word(this, &SOURCES),
        Some("auto|off"),
        "Whether the files that entries were made of are looked at, with the rights of the directory's owner"
    ),
    age!(
        "orphaned-grace",
        orphaned_grace,
        "Evict what has lost its source when it was not looked up for so long since; or off"
    ),
    age!(
        "foreign-age",
        foreign_age,
        "Evict the entries of an interpreter or engine version that was idle for so long, while another was not; or off"
    ),
    age!(
        "stale-temp",
        stale_temp,
        "Drop what was never committed and not written for so long; or off"
    ),
    key!(
        "keep-free",
        keep_free,
        value::keep_free,
        value::show_keep_free,
        Some("SIZE|%|auto"),
        "Free space left on the backing filesystem; auto is the smaller of 5% and 1GiB"
    ),
    key!(
        "sweep-interval",
        sweep_interval,
        value::time,
        value::show_time,
        Some("TIME"),
        "The evictor's schedule"
    ),
    key!(
        "entry-timeout",
        entry_timeout,
        value::time,
        value::show_time,
        Some("TIME"),
        "How long the kernel keeps a name; then it asks, and the use of the entry is noticed"
    ),
    key!(
        "durability",
        durability,
        |text| value::word(text, &DURABILITIES),
        |this| value::show_word(this, &DURABILITIES),
        Some("async|crash|power"),
        "What a commit survives when it returns: nothing yet, the daemon's death, a power cut"
    ),
    Key {
        name: "pattern",
        value_name: Some("P"),
        help: "Entry names, with {version}, {name} and {hash}",
        set: |config, text| {
            config.pattern = value::text(text)?
                .parse::<Pattern>()
                .map_err(|error| format!("is not an entry name pattern: {error}"))?;
            Ok(())
        },
        show: |config| Some(config.pattern.to_string().into()),
    },
    switch!("read-only", read_only, "Serve without writes"),
    switch!(
        "adopt",
        adopt,
        "Serve a directory that is no cache directory yet: one with other files and no entry, a home, a work tree"
    ),
    switch!("allow-other", allow_other, "Let other users in"),
    switch!(
        "trust-group",
        trust_group,
        "Serve what members of the directory's group could have written, too"
    ),
    Key {
        name: SEAL_KEY,
        value_name: Some("FILE"),
        help: "Serve nothing without a right seal by a key of this file, and seal what is committed",
        set: |config, text| {
            config.seal_key = Some(PathBuf::from(text));
            Ok(())
        },
        show: |config| {
            let path = config.seal_key.as_ref()?;
            Some(path.clone().into_os_string())
        },
    },
    switch!(
        "xattrs",
        xattrs,
        "Serve extended attributes, for which the kernel then asks often"
    ),
    switch!("warm", warm, "Load every entry at mount"),
    key!(
        "threads",
        threads,
        value::count,
        |n: usize| n.to_string(),
        Some("N"),
        "Event threads"
    ),
    key!(
        "poll",
        poll,
        value::time,
        value::show_time,
        Some("TIME"),
        "How long to poll after the last request of a burst where no CPU-latency request is held; 0 for not at all"
    ),
    key!(
        "latency",
        latency,
        |text| value::word(text, &LATENCIES),
        |this| value::show_word(this, &LATENCIES),
        Some("auto|off"),
        "Whether a CPU-latency request is held in bursts, where the daemon may"
    ),
    text!(
        "remote",
        url,
        Some("URL"),
        "Carry the cache to and from this remote (see `kidafs sync`)"
    ),
    text!(
        "remote-namespace",
        namespace,
        Some("N"),
        "The cache's name there"
    ),
    list!(
        "remote-trust",
        trust,
        Some("KEY,…"),
        "The keys whose packs are taken"
    ),
    Key {
        name: "remote-sign-key",
        value_name: Some("FILE"),
        help: "The secret key that signs what is pushed; without one nothing is pushed",
        set: |config, text| {
            config.remote.sign_key = Some(value::from_here(text)?);
            Ok(())
        },
        show: |config| Some(config.remote.sign_key.as_ref()?.clone().into_os_string()),
    },
    Key {
        name: "remote-unsigned",
        value_name: None,
        help: "Take and make unsigned packs: whoever can write to the remote can then run code here",
        set: |config, text| {
            config.remote.unsigned = value::switch(value::text(text)?)?;
            Ok(())
        },
        show: |config| Some(config.remote.unsigned.to_string().into()),
    },
    list!(
        "remote-version-tag",
        version_tags,
        Some("TAG,…"),
        "The versions that are taken; none: those in use"
    ),
    text!(
        "remote-endpoint",
        endpoint,
        Some("URL"),
        "The service's address, where it is not the provider's own"
    ),
    text!(
        "remote-region",
        region,
        Some("R"),
        "The region of an S3 bucket"
    ),
    Key {
        name: "remote-path-style",
        value_name: Some("BOOL"),
        help: "The bucket's name in the path, not in the host's name",
        set: |config, text| {
            config.remote.path_style = Some(value::switch(value::text(text)?)?);
            Ok(())
        },
        show: |config| Some(config.remote.path_style?.to_string().into()),
    },
    Key {
        name: "remote-ca-file",
        value_name: Some("FILE"),
        help: "Certificates, as PEM, that are trusted beside the system's",
        set: |config, text| {
            config.remote.ca_file = Some(value::from_here(text)?);
            Ok(())
        },
        show: |config| Some(config.remote.ca_file.as_ref()?.clone().into_os_string()),
    },
    span!(
        "remote-timeout",
        timeout,
        "The longest that one request may take"
    ),
    span!(
        "remote-connect-timeout",
        connect_timeout,
        "The longest that a connection may take to be made"
    ),
    Key {
        name: "remote-expire",
        value_name: Some("TIME"),
        help: "How long the remote keeps what is pushed, or off; Redis only",
        set: |config, text| {
            config.remote.expire = value::age(value::text(text)?)?;
            Ok(())
        },
        show: |config| Some(value::show_age(config.remote.expire).into()),
    },
    list!(
        "remote-option",
        further,
        Some("KEY=VALUE,…"),
        "Further options of the store, as its library calls them"
    ),
    span!("remote-interval", interval, "How often to pull"),
    span!(
        "remote-wait",
        wait,
        "How long the mount waits for the first pull"
    ),
    switch!(
        "supervise",
        supervise,
        "Restart a daemon that died [default: true]; --no-supervise: do not"
    ),
    switch!(
        "confine",
        confine,
        "Give up the rights of root's that the daemon does not use [default: true]"
    ),
    Key {
        name: LOG_FILE,
        value_name: Some("FILE"),
        help: "Where a daemon in the background logs to; SIGHUP opens it anew [default: the journal or syslog]",
        set: |config, text| {
            config.log_file = Some(PathBuf::from(text));
            Ok(())
        },
        show: |config| Some(config.log_file.as_ref()?.clone().into_os_string()),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_shown_as_it_is_read() {
        for key in &KEYS {
            let mut config = Config::default();
            if let Some(text) = (key.show)(&Config::default()) {
                (key.set)(&mut config, &text).unwrap();
            }
            assert_eq!(config, Config::default(), "{}", key.name);
        }
    }

    #[test]
    fn names_are_unique_and_found_in_both_spellings() {
        for key in &KEYS {
            let found = |name: &str| Key::find(name).map(|found| found.name);
            assert_eq!(found(key.name), Some(key.name));
            assert_eq!(found(&key.name.replace('-', "_")), Some(key.name));
        }
        assert!(Key::find("max").is_none());
    }
}
