//! The mount helper: what mount(8) runs for `kidafs` and `fuse.kidafs` in `/etc/fstab`.
//!
//! It is this same binary under another name, a link `/sbin/mount.kidafs` (and `mount.fuse.kidafs`),
//! called as `mount.kidafs SOURCE DIR [-sfnv] [-o OPTIONS] [-t TYPE]` (mount(8), 'External helpers').

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{ArgAction, Parser};

use super::mount::Mount;
use super::options::MountOptions;

/// The names under which the binary is the helper.
const NAMES: [&str; 2] = ["mount.kidafs", "mount.fuse.kidafs"];

/// The sources that are no directory: entries are kept in the one that is mounted over.
const NO_BACKING: [&str; 2] = ["none", "kidafs"];

#[derive(Parser)]
#[command(
    name = "mount.kidafs",
    version,
    about = "Mount kidafs from /etc/fstab: mount(8) runs this",
    after_help = "A line of /etc/fstab: none /srv/app/cache kidafs max-size=2GiB,allow-other 0 0"
)]
pub(super) struct Helper {
    /// The backing directory; `none` or `kidafs`: DIR itself
    #[arg(value_name = "SOURCE")]
    source: OsString,

    /// The mount point; created if it is missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Mount options, those of `kidafs mount`
    #[arg(short, value_name = "KEY=VALUE,…", action = ArgAction::Append)]
    options: Vec<OsString>,

    /// Check the options, and do not mount
    #[arg(short)]
    fake: bool,

    /// The type in /etc/fstab; without effect
    #[arg(short = 't', value_name = "TYPE")]
    _type: Option<OsString>,

    /// Sloppy; without effect
    #[arg(short = 's')]
    _sloppy: bool,

    /// No entry in /etc/mtab; there never is one
    #[arg(short = 'n')]
    _no_mtab: bool,

    /// Verbose; without effect
    #[arg(short = 'v')]
    _verbose: bool,
}

impl Helper {
    /// Whether a program of this name (`argv[0]`) is the helper.
    pub(super) fn is_called(name: &OsStr) -> bool {
        let name = Path::new(name).file_name();
        NAMES.iter().any(|own| name == Some(OsStr::new(own)))
    }

    /// The same as `kidafs mount`.
    pub(super) fn mount(self) -> Mount {
        let is_backing = !NO_BACKING.iter().any(|word| self.source == *word);
        let backing = is_backing.then_some(self.source);
        let options = MountOptions::of_fstab(self.options, backing);
        Mount::new(self.dir, options, self.fake)
    }
}
