//! The `kidafs` binary: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    kidafs::cli::main()
}
