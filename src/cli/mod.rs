//! The command line: argument handling and printing, one file per command.
//!
//! A command gets its arguments and standard output, and returns its exit status. Errors travel up
//! as [`anyhow::Error`] and become one sentence on standard error here.

mod cleanup;
mod clear;
mod completions;
mod config;
mod doctor;
mod entry;
mod first_sweep;
mod get;
mod hash;
mod helper;
mod inspect;
mod key;
#[cfg(feature = "remote")]
mod key_pair;
mod list;
mod listing;
mod logging;
mod ls;
mod man;
mod mount;
mod options;
mod path;
mod ping;
mod print;
#[cfg(feature = "remote")]
mod pull;
#[cfg(feature = "remote")]
mod push;
#[cfg(feature = "remote")]
mod remote;
#[cfg(feature = "remote")]
mod remote_options;
mod run;
mod seal;
mod set;
mod stats;
mod survey;
mod sweep;
#[cfg(feature = "remote")]
mod sync;
mod target;
mod umount;
mod verify;
mod warm;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::daemon::inherited;
use crate::daemon::start::Role;
use helper::Helper;
use options::OptionError;

/// Standard output, as a command sees it.
type Output<'a> = &'a mut dyn Write;

/// What a command comes to.
type Outcome = anyhow::Result<ExitCode>;

/// The exit status of wrong usage, as clap gives it too.
const WRONG_USAGE: u8 = 2;

#[derive(Parser)]
#[command(
    name = "kidafs",
    version,
    about = "A filesystem for a template engine's bytecode cache",
    long_about = "kidafs is mounted in place of a template engine's bytecode cache directory and makes it fast, \
                  bounded, safe and observable. DIR is a mount point or a plain cache directory; every command \
                  but mount, umount, run and sweep works on both.",
    after_help = "Exit status: 0 done, 1 failed, 2 wrong usage.",
    arg_required_else_help = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Mount(mount::Mount),
    Umount(umount::Umount),
    Run(run::Run),
    Stats(stats::Stats),
    Ls(ls::Ls),
    List(list::List),
    Ping(ping::Ping),
    Inspect(inspect::Inspect),
    Verify(verify::Verify),
    Clear(clear::Clear),
    Cleanup(cleanup::Cleanup),
    Sweep(sweep::Sweep),
    #[command(subcommand)]
    Key(key::Key),
    Seal(seal::Seal),
    Hash(hash::Hash),
    Path(path::Path),
    Get(get::Get),
    Set(set::Set),
    Warm(warm::Warm),
    #[cfg(feature = "remote")]
    Push(push::Push),
    #[cfg(feature = "remote")]
    Pull(pull::Pull),
    #[cfg(feature = "remote")]
    Sync(sync::SyncCommand),
    #[cfg(feature = "remote")]
    #[command(subcommand)]
    Remote(remote::Remote),
    Config(config::Show),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Command {
    fn run(self, out: Output<'_>) -> Outcome {
        match self {
            Self::Mount(command) => command.run(out),
            Self::Umount(command) => command.run(out),
            Self::Run(command) => command.run(out),
            Self::Stats(command) => command.run(out),
            Self::Ls(command) => command.run(out),
            Self::List(command) => command.run(out),
            Self::Ping(command) => command.run(out),
            Self::Inspect(command) => command.run(out),
            Self::Verify(command) => command.run(out),
            Self::Clear(command) => command.run(out),
            Self::Cleanup(command) => command.run(out),
            Self::Sweep(command) => command.run(out),
            Self::Key(command) => command.run(out),
            Self::Seal(command) => command.run(out),
            Self::Hash(command) => command.run(out),
            Self::Path(command) => command.run(out),
            Self::Get(command) => command.run(out),
            Self::Set(command) => command.run(out),
            Self::Warm(command) => command.run(out),
            #[cfg(feature = "remote")]
            Self::Push(command) => command.run(out),
            #[cfg(feature = "remote")]
            Self::Pull(command) => command.run(out),
            #[cfg(feature = "remote")]
            Self::Sync(command) => command.run(out),
            #[cfg(feature = "remote")]
            Self::Remote(command) => command.run(out),
            Self::Config(command) => command.run(out),
            Self::Doctor(command) => command.run(out),
            Self::Completions(command) => command.run(out),
            Self::Man(command) => command.run(out),
        }
    }
}

/// Reads a text as mount options and as a configuration file, and forgets them: total over its input. For
/// `fuzz/`.
pub fn try_options(text: &[u8]) {
    options::try_text(text);
}

/// Runs the command line and returns its exit status: 0 done, 1 failed, 2 wrong usage.
pub fn main() -> ExitCode {
    if Role::of_this_process() != Role::Command
        && let Err(error) = inherited::shed()
    {
        return report(&anyhow::Error::new(error).context("cannot start the daemon"));
    }
    let command = match parse() {
        Ok(command) => command,
        Err(error) => {
            // Help is an error of this kind too. Where it cannot be printed nobody reads it.
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    logging::start();
    let mut out = BufWriter::new(io::stdout().lock());
    let outcome = command.run(&mut out).and_then(|status| {
        out.flush()?;
        Ok(status)
    });
    outcome.unwrap_or_else(|error| report(&error))
}

/// The command, by the words and by the name under which the binary was called.
fn parse() -> Result<Command, clap::Error> {
    let name = std::env::args_os().next().unwrap_or_default();
    // A daemon keeps the name of the helper that started it, and has other arguments.
    if Role::of_this_process() == Role::Command && Helper::is_called(&name) {
        return Helper::try_parse().map(|helper| Command::Mount(helper.mount()));
    }
    Cli::try_parse().map(|cli| cli.command)
}

/// Says what went wrong, in one sentence, and gives the exit status.
fn report(error: &anyhow::Error) -> ExitCode {
    let closed = error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    if closed {
        // `kidafs ls DIR | head`: the reader has seen enough.
        return ExitCode::SUCCESS;
    }
    let text = sentence(error);
    // Without standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "kidafs: {}", print::clean(&text));
    if error.downcast_ref::<OptionError>().is_some() {
        ExitCode::from(WRONG_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// The error and its causes in one line. Some errors tell their cause themselves; it is not told twice.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        let cause = cause.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use clap::CommandFactory;

    #[test]
    fn an_error_is_one_line_and_tells_a_cause_once() {
        let cause = anyhow!("at offset 3:\n  junk");
        let error = cause
            .context("no code (at offset 3:\n  junk)")
            .context("cannot read x");
        assert_eq!(
            super::sentence(&error),
            "cannot read x: no code (at offset 3: junk)"
        );
        let error = anyhow!("junk").context("no code: junk");
        assert_eq!(super::sentence(&error), "no code: junk");
    }

    #[test]
    fn the_arguments_are_well_formed() {
        super::Cli::command().debug_assert();
    }
}
