//! A process's life: mounting, readiness, signals, unmounting, starting again.
//!
//! Nothing here knows what is served. How the pieces go together in a daemon, in this order:
//!
//! 1. make the paths given absolute ([`std::path::absolute`], which touches no filesystem);
//! 2. [`mount::clear`] detaches dead mounts and refuses live ones; [`backing::create`] makes a
//!    directory that is missing;
//! 3. [`backing::Backing::open`] opens, checks and locks the directory while it can be named;
//! 4. [`start::Start::begin`], [`signals::Signals::install`], then [`mount::mount`];
//! 5. now that nobody writes to it any more, the backing directory is read;
//! 6. `fuser::Session::from_fd` with the descriptor, and [`serve::serve`] until the end.
//!
//! | module | what is in it |
//! |---|---|
//! | [`mountinfo`], [`mountpoint`] | what is mounted; what is at a directory, without hanging on it |
//! | [`mount`], [`unmount`] | mount(2) or `fusermount3`, and back |
//! | [`elsewhere`], [`farewell`] | in which other namespaces a mount lives on; what is lost at an end |
//! | [`backing`] | the backing directory: who may have written it, and who serves it |
//! | [`strict_path`] | the way to it, for root |
//! | [`seal_key`] | the key without whose seal nothing is served |
//! | [`role`], [`start`], [`run`] | daemons in the background; a mount for as long as a command runs |
//! | [`inherited`] | what a daemon must not keep of its starter's |
//! | [`logfile`] | the file that a daemon in the background logs to |
//! | [`supervise`] | a daemon that is started again when it died |
//! | [`signals`], [`serve`] | a daemon's service and its clean end |

pub mod backing;
pub mod companion;
pub mod elsewhere;
pub mod farewell;
mod fusermount;
pub mod inherited;
mod kernel;
pub mod logfile;
pub mod mount;
pub mod mountinfo;
pub mod mountpoint;
pub mod role;
pub mod run;
pub mod seal_key;
pub mod serve;
pub mod signals;
pub mod start;
pub mod strict_path;
pub mod supervise;
pub mod unmount;

/// The log's name for what everybody wants to know of a daemon's life, which is told at the default level.
pub const EVENTS: &str = "kidafs::events";
