//! The command line: argument handling and printing, one file per command.

mod options;

use std::process::ExitCode;

/// Runs the command line and returns its exit status: 0 done, 1 failed, 2 wrong usage.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
