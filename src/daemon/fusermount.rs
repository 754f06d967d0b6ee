//! `fusermount3`, the set-user-id program by which an ordinary user mounts and unmounts.

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

/// Its names, of libfuse 3 and of libfuse 2; looked for in PATH.
const PROGRAMS: [&str; 2] = ["fusermount3", "fusermount"];

/// The variable by which it learns the descriptor of the socket that takes `/dev/fuse`.
const SOCKET_VARIABLE: &str = "_FUSE_COMMFD";

/// Why it did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelperError {
    /// It is not installed.
    #[error("not found")]
    Missing,
    /// It refused; its own words, without its name.
    #[error("{0}")]
    Refused(String),
    /// It could not be run or listened to.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Mounts over `dir` and returns the descriptor of `/dev/fuse`. `options` as for its `-o`.
pub(super) fn mount(dir: &Path, options: &OsStr) -> Result<OwnedFd, HelperError> {
    let (ours, theirs) = UnixStream::pair()?;
    // The socket is its standard input, because that is the one descriptor that can be handed to
    // a child without clearing its close-on-exec flag between fork and exec.
    let child = spawn(|command| {
        command
            .arg("-o")
            .arg(options)
            .arg("--")
            .arg(dir)
            .env(SOCKET_VARIABLE, "0")
            .stdin(Stdio::from(OwnedFd::from(theirs.try_clone()?)));
        Ok(())
    })?;
    // Only the child has it now, so its end is the end of the stream.
    drop(theirs);
    let device = receive(ours.as_fd());
    // It ends when it has sent the descriptor (`auto_unmount`, by which it stays, is not asked for).
    finish(child)?;
    device?.ok_or_else(|| HelperError::Refused("it sent no descriptor".to_owned()))
}

/// Unmounts `dir`; `lazy` detaches it even if it is in use.
pub(super) fn unmount(dir: &Path, lazy: bool) -> Result<(), HelperError> {
    let child = spawn(|command| {
        command.arg("-u");
        if lazy {
            command.arg("-z");
        }
        command.arg("--").arg(dir).stdin(Stdio::null());
        Ok(())
    })?;
    finish(child)
}

/// The value of an option `fsname` or `subtype`, whose syntax a comma would end.
pub(super) fn escape(value: &OsStr) -> OsString {
    let mut bytes = Vec::with_capacity(value.len());
    for &byte in value.as_bytes() {
        if matches!(byte, b',' | b'\\') {
            bytes.push(b'\\');
        }
        bytes.push(byte);
    }
    OsString::from_vec(bytes)
}

fn spawn(arguments: impl Fn(&mut Command) -> io::Result<()>) -> Result<Child, HelperError> {
    for program in PROGRAMS {
        let mut command = Command::new(program);
        arguments(&mut command)?;
        let spawned = command
            // It must not name a mount point, nor be in one that is being unmounted.
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        match spawned {
            Ok(child) => return Ok(child),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(HelperError::Missing)
}

fn finish(mut child: Child) -> Result<(), HelperError> {
    let mut said = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_end(&mut said)?;
    }
    let status = child.wait()?;
    let said = String::from_utf8_lossy(&said);
    // Several lines if it grumbles about /etc/fuse.conf first; the last one is why it gave up.
    let last = said.lines().rfind(|line| !line.trim().is_empty());
    if status.success() {
        if let Some(line) = last {
            log::warn!("{line}");
        }
        return Ok(());
    }
    Err(HelperError::Refused(last.map_or_else(
        || status.to_string(),
        |line| {
            let text = line.split_once(": ").map_or(line, |(_, text)| text);
            text.trim().to_owned()
        },
    )))
}

/// Waits for the descriptor; `None` if the stream ends without one.
fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0_u8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    loop {
        let mut data = [IoSliceMut::new(&mut byte)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        match rustix::net::recvmsg(socket, &mut data, &mut control, flags) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }))
}
