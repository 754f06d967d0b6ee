//! Python 3.13 and older asks `isatty` at each `open()`: one message that the kernel does not remember.

use std::fs;
use std::process::Command;

use crate::support::mount::{Mount, done};
use crate::support::python::pythons;

/// That the log has nothing but the events of a mount's life.
fn assert_quiet(mount: &Mount) {
    let log = mount.log();
    let lines = log.lines();
    let odd: Vec<_> = lines
        .filter(|line| !line.contains("kidafs::events"))
        .collect();
    assert!(odd.is_empty(), "{odd:?}");
}

#[test]
fn each_open_of_an_older_python_is_one_counted_message_and_no_line_of_the_log() {
    const OPENS: u64 = 100;
    let mut tried = Vec::new();
    for python in pythons() {
        let release = done(
            Command::new(&python).args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]),
        );
        let release = release.trim().to_owned();
        let mount = Mount::new(&["--supervise=false"]);
        fs::write(mount.path("file"), "content").unwrap();
        let script = format!("for n in range({OPENS}): open('file', 'rb').read()");
        let status = Command::new(&python)
            .args(["-E", "-s", "-c", &script])
            .current_dir(mount.dir())
            .status();
        assert!(status.unwrap().success());
        let asked = mount.stats().requests.get("ioctl").copied().unwrap_or(0);
        let expected = if release == "3.14" { 0 } else { OPENS };
        assert_eq!(asked, expected, "Python {release}");
        assert_quiet(&mount);
        tried.push(release);
    }
    eprintln!("tried with Python {}", tried.join(", "));
    assert!(
        tried.iter().any(|release| release != "3.14"),
        "no Python below 3.14 is here: install one (Debian: python3)"
    );
}

#[test]
fn whatever_a_tool_asks_beyond_reading_and_writing_is_counted_and_answered_without_a_line_of_the_log()
 {
    let mount = Mount::new(&["--supervise=false"]);
    fs::write(mount.path("file"), "content").unwrap();
    let script = "\
import errno, fcntl, os, termios
f = os.open('file', os.O_RDWR)
g = os.open('copy', os.O_RDWR | os.O_CREAT)
assert os.lseek(f, 0, os.SEEK_DATA) == 0 and os.lseek(f, 0, os.SEEK_HOLE) == 7
os.lseek(f, 0, os.SEEK_SET)
assert os.copy_file_range(f, g, 7) == 7 and os.pread(g, 9, 0) == b'content'
os.posix_fallocate(f, 0, 9)
assert os.fstat(f).st_size == 9
for request in termios.TCGETS, 0x80086601:  # FS_IOC_GETFLAGS, as lsattr asks
    try:
        fcntl.ioctl(f, request, bytes(64))
        raise SystemExit('no error')
    except OSError as error:
        assert error.errno == errno.ENOTTY, error
";
    let python = crate::support::python::python();
    done(
        Command::new(python)
            .args(["-c", script])
            .current_dir(mount.dir()),
    );
    let asked = mount.stats().requests;
    for request in ["lseek", "copy_file_range", "fallocate", "ioctl"] {
        assert!(asked.contains_key(request), "{request}: {asked:?}");
    }
    assert_quiet(&mount);
}
