//! A mount to see whether mounting works and what the kernel agrees to: for `kidafs doctor`.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use crate::stats::Stats;

/// Mounts over a temporary directory for a moment, with the default options, and returns what the
/// daemon told there.
///
/// # Errors
/// A sentence about what failed.
pub(super) fn mount() -> Result<Stats, String> {
    let output = run().map_err(|error| format!("cannot be tried ({error})"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let words: Vec<_> = words.split_whitespace().collect();
        let reason = words.join(" ");
        let reason = reason.strip_prefix("kidafs: ").unwrap_or(&reason);
        return Err(format!("a trial mount failed ({reason})"));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("a trial mount told nothing ({error})"))
}

fn run() -> io::Result<Output> {
    let folder = tempfile::Builder::new()
        .prefix("kidafs-doctor-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir()?;
    let program = std::env::current_exe()?;
    let mut command = Command::new(&program);
    command.arg("run").arg(folder.path()).arg("--");
    command.arg(&program).args(["stats", "--json"]);
    command.arg(folder.path()).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KIDAFS_") {
            command.env_remove(name);
        }
    }
    let output = command.env("KIDAFS_CONFIG", "/dev/null").output()?;
    folder.close()?;
    Ok(output)
}
