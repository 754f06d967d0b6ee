//! What a daemon may do is what it has to do.

use std::fs;

use crate::support::mount::Mount;
use crate::support::situation::is_root;

fn status(mount: &Mount, thread: &str, key: &str) -> String {
    let pid = mount.pid().as_raw_nonzero();
    let status = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap().trim().to_owned()
}

#[test]
fn no_thread_of_roots_daemon_has_a_right_that_it_does_not_use() {
    if !is_root() {
        return;
    }
    // CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETGID, SETUID, SYS_ADMIN of capabilities(7).
    const USED: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 21;
    let mut mount = Mount::new(&[]);
    mount.commit("a", "A");
    let threads = format!("/proc/{}/task", mount.pid().as_raw_nonzero());
    let mut serving = 0;
    for thread in fs::read_dir(threads).unwrap().flatten() {
        let name = fs::read_to_string(thread.path().join("comm")).unwrap();
        let thread = thread.file_name().into_string().unwrap();
        let rights = u64::from_str_radix(&status(&mount, &thread, "CapPrm:"), 16).unwrap();
        if name.trim() != "kidafs-signals" {
            assert_eq!(rights & !USED, 0, "{name}");
            assert_eq!(status(&mount, &thread, "NoNewPrivs:"), "1", "{name}");
        }
        serving += 1;
    }
    assert!(serving > 3);
    mount.umount();
}

#[test]
fn confinement_can_be_switched_off() {
    let mount = Mount::new(&["--confine=false"]);
    let pid = mount.pid().as_raw_nonzero().to_string();
    assert_eq!(status(&mount, &pid, "NoNewPrivs:"), "0");
}
