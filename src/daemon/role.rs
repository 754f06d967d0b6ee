//! What a process of this program is, told by whoever started it in a variable of its environment.

use std::ffi::OsStr;

/// Tells a process that it is the daemon of another; its value is the [`Role`].
pub(super) const VARIABLE: &str = "_KIDAFS_ROLE";

/// What this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Started by a user or a service manager: it may serve, or start a daemon.
    Command,
    /// The daemon of `kidafs mount`, which outlives its starter.
    Background,
    /// The daemon of `kidafs run`, which ends when its starter does, however that ends.
    Attached,
    /// The daemon of a supervisor: it serves, and is started again if it dies.
    Supervised(Supervisor),
}

/// What the supervisor of a daemon is itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supervisor {
    /// [`Role::Command`]: it is in the foreground, and so is the daemon's log.
    Foreground,
    /// [`Role::Background`].
    Background,
    /// [`Role::Attached`]: the daemon ends when its supervisor does, however that ends.
    Attached,
}

impl Role {
    /// This process's role, from its environment.
    pub fn of_this_process() -> Self {
        match std::env::var_os(VARIABLE)
            .as_deref()
            .and_then(OsStr::to_str)
        {
            Some("background") => Self::Background,
            Some("attached") => Self::Attached,
            Some("supervised-foreground") => Self::Supervised(Supervisor::Foreground),
            Some("supervised-background") => Self::Supervised(Supervisor::Background),
            Some("supervised-attached") => Self::Supervised(Supervisor::Attached),
            _ => Self::Command,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Command => "",
            Self::Background => "background",
            Self::Attached => "attached",
            Self::Supervised(Supervisor::Foreground) => "supervised-foreground",
            Self::Supervised(Supervisor::Background) => "supervised-background",
            Self::Supervised(Supervisor::Attached) => "supervised-attached",
        }
    }

    /// Whether this process has a supervisor, and so is to serve and not to become one.
    pub fn is_supervised(self) -> bool {
        matches!(self, Self::Supervised(_))
    }

    /// The role of a daemon that a process of this role supervises.
    pub(super) fn of_supervised(self) -> Self {
        Self::Supervised(match self {
            Self::Command => Supervisor::Foreground,
            Self::Background => Supervisor::Background,
            Self::Attached => Supervisor::Attached,
            Self::Supervised(supervisor) => supervisor,
        })
    }

    /// Whether it keeps the standard error it was started with.
    pub fn is_in_foreground(self) -> bool {
        matches!(
            self,
            Self::Command | Self::Supervised(Supervisor::Foreground)
        )
    }

    /// Whether it ends when its starter does.
    pub(super) fn ends_with_its_starter(self) -> bool {
        matches!(
            self,
            Self::Attached | Self::Supervised(Supervisor::Attached)
        )
    }
}
