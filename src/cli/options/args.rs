//! The options as clap arguments, made from the table of keys.

use std::ffi::OsString;

use clap::builder::{OsStringValueParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::Given;
use super::key::{BACKING, KEYS, Key, NO_SUPERVISE, SUPERVISE};
use crate::config::{Config, Origin};

/// The options of `mount`, `run` and `config`, as they were written. The values are read by
/// [`resolve`](super::resolve), which knows the other layers.
#[derive(Debug, Clone, Default)]
pub(crate) struct MountOptions {
    pub(super) given: Vec<Given>,
    pub(super) mount_options: Vec<OsString>,
    pub(super) resolved: Option<String>,
}

const MOUNT_OPTION: &str = "mount-option";
const RESOLVED: &str = "resolved";
const HEADING: &str = "Mount options (also as KIDAFS_… variables, in kidafs.toml and in -o)";

fn argument(key: &'static Key) -> Arg {
    let default = (key.show)(&Config::default());
    let help = match (&default, key.value_name) {
        (Some(value), Some(_)) => format!("{} [default: {}]", key.help, value.to_string_lossy()),
        _ => key.help.to_owned(),
    };
    let argument = Arg::new(key.name)
        .long(key.name)
        .help(help)
        .help_heading(HEADING)
        .action(ArgAction::Set)
        .overrides_with(key.name)
        .value_parser(ValueParser::new(OsStringValueParser::new()));
    match key.value_name {
        Some(name) => argument.value_name(name),
        // `--warm=false` takes back what a file says.
        None => argument
            .value_name("BOOL")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .hide_possible_values(true),
    }
}

impl MountOptions {
    /// What a line of `/etc/fstab` says: its options, and its source as the backing directory.
    pub(crate) fn of_fstab(mount_options: Vec<OsString>, backing: Option<OsString>) -> Self {
        let given = backing.map(|value| Given {
            name: BACKING,
            value,
            origin: Origin::MountOption,
        });
        Self {
            given: given.into_iter().collect(),
            mount_options,
            resolved: None,
        }
    }
}

impl Args for MountOptions {
    fn augment_args(command: Command) -> Command {
        command
            .args(KEYS.iter().map(argument))
            .arg(
                Arg::new(MOUNT_OPTION)
                    .short('o')
                    .value_name("KEY=VALUE,…")
                    .help("Mount options as in /etc/fstab; an option of its own wins over one given here")
                    .help_heading(HEADING)
                    .action(ArgAction::Append)
                    .value_parser(ValueParser::new(OsStringValueParser::new())),
            )
            .arg(
                Arg::new(NO_SUPERVISE)
                    .long(NO_SUPERVISE)
                    .hide(true)
                    .action(ArgAction::SetTrue)
                    .overrides_with(SUPERVISE),
            )
            .arg(
                Arg::new(RESOLVED)
                    .long(RESOLVED)
                    .hide(true)
                    .action(ArgAction::Set),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for MountOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given: Vec<_> = KEYS
            .iter()
            .filter_map(|key| {
                let value = matches.get_one::<OsString>(key.name)?;
                Some(Given {
                    name: key.name,
                    value: value.clone(),
                    origin: Origin::CommandLine,
                })
            })
            .collect();
        if matches.get_flag(NO_SUPERVISE) {
            given.push(Given {
                name: SUPERVISE,
                value: OsString::from("false"),
                origin: Origin::CommandLine,
            });
        }
        Ok(Self {
            given,
            mount_options: matches
                .get_many(MOUNT_OPTION)
                .map(|values| values.cloned().collect())
                .unwrap_or_default(),
            resolved: matches.get_one::<String>(RESOLVED).cloned(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
