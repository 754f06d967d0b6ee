//! The table of mounts is read as the kernel writes it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kidafs::daemon::mountinfo::{parse, read, top};

const TABLE: &[u8] = b"\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
90 27 0:45 / /srv/with\\040space\\011tab\\134back\\012line\\043hash rw,nosuid shared:3 master:1 - fuse.kidafs /back\\040ing rw,user_id=1000,group_id=100,default_permissions
91 27 0:46 / /srv/plain rw - fuse sshfs#host rw,user_id=0,group_id=0
";

#[test]
fn octal_escapes_are_undone() {
    let mounts = parse(TABLE);
    let path = OsStr::from_bytes(b"/srv/with space\ttab\\back\nline#hash");
    let mount = top(&mounts, Path::new(path)).unwrap();
    assert_eq!(mount.id, 90);
    assert_eq!(mount.source, "/back ing");
}

#[test]
fn every_field_is_found_behind_any_number_of_optional_ones() {
    let mounts = parse(TABLE);
    assert_eq!(mounts.len(), 3);
    assert_eq!(mounts[1].parent, 27);
    assert_eq!(mounts[1].device, (0, 45));
    assert_eq!(mounts[1].user_id(), Some(1000));
    assert!(mounts[1].is_kidafs() && mounts[1].is_fuse());
    assert!(!mounts[2].is_kidafs() && mounts[2].is_fuse());
    assert!(!mounts[0].is_fuse());
    assert_eq!(mounts[0].user_id(), None);
}

#[test]
fn names_that_are_not_utf8_are_kept() {
    let mounts = parse(b"5 1 0:9 / /a\xff rw - fuse.kidafs \xfe rw\n");
    assert_eq!(mounts[0].mount_point.as_os_str().as_bytes(), b"/a\xff");
    assert_eq!(mounts[0].source.as_bytes(), b"\xfe");
}

#[test]
fn of_mounts_on_one_path_the_last_is_on_top() {
    let mounts = parse(b"5 1 0:9 / /a rw - ext4 x rw\n6 5 0:10 / /a rw - tmpfs y rw\n7 1 0:11 / /b rw - tmpfs z rw\n");
    assert_eq!(top(&mounts, Path::new("/a")).unwrap().id, 6);
}

#[test]
fn a_mount_that_was_put_beneath_another_is_not_on_top() {
    // After `mount --beneath` the later one carries the earlier one.
    let mounts = parse(b"5 6 0:9 / /a rw - ext4 x rw\n6 1 0:10 / /a rw - tmpfs y rw\n");
    assert_eq!(top(&mounts, Path::new("/a")).unwrap().id, 5);
}

#[test]
fn a_path_inside_a_mount_is_not_the_mount() {
    assert_eq!(top(&parse(TABLE), Path::new("/srv/plain/sub")), None);
}

#[test]
fn lines_that_make_no_sense_are_left_out() {
    let table = b"\n1\nx y z\n5 1 0:9 / /a\n5 1 9 / /a rw - t s o\n6 1 0:9 / /b rw - tmpfs\n8 1 0:9 / /c rw - tmpfs s\n";
    let ids: Vec<_> = parse(table).iter().map(|mount| mount.id).collect();
    assert_eq!(ids, [8]);
}

#[test]
fn an_unfinished_escape_is_taken_as_it_stands() {
    let mounts = parse(b"5 1 0:9 / /a\\04 rw - t \\999 rw\n");
    assert_eq!(mounts[0].mount_point, Path::new("/a\\04"));
    assert_eq!(mounts[0].source, "\\999");
}

#[test]
fn the_machines_own_table_can_be_read() {
    let mounts = read().unwrap();
    assert!(top(&mounts, Path::new("/proc")).is_some_and(|mount| mount.fstype == "proc"));
}
