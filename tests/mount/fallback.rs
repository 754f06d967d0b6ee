//! On kernels that lack what the path without messages needs, everything else is as it is.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::support::daemon::folder;
use crate::support::mount::{done, kidafs, stats};

const ENTRY: &str = "__kida_py314_page.html_0123456789abcdef.pyc";

fn commit(dir: &Path, content: &[u8]) {
    let temporary = dir.join(format!("{ENTRY}.abcdefgh.tmp"));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)
        .unwrap();
    file.write_all(content).unwrap();
    fs::rename(&temporary, dir.join(ENTRY)).unwrap();
}

/// What engines and people do with a mount; true to a plain directory in every step.
fn use_it(dir: &Path) {
    let path = dir.join(ENTRY);
    assert!(!path.exists());
    commit(dir, &[1; 10_000]);
    let mut replaced = File::open(&path).unwrap();
    commit(dir, &[2; 9_000]);
    assert_eq!(fs::read(&path).unwrap(), [2; 9_000]);
    let mut old = Vec::new();
    replaced.read_to_end(&mut old).unwrap();
    assert_eq!(old, [1; 10_000], "who has it open goes on reading it");

    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    file.write_all_at(b"in place", 100).unwrap();
    OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"appended")
        .unwrap();
    let content = fs::read(&path).unwrap();
    assert_eq!(
        (&content[100..108], &content[9_000..]),
        (&b"in place"[..], &b"appended"[..])
    );
    OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    file.write_all_at(b"unlinked", 0).unwrap();
    fs::remove_file(&path).unwrap();
    let mut kept = [0; 8];
    file.read_exact_at(&mut kept, 0).unwrap();
    assert_eq!(&kept, b"unlinked");

    fs::create_dir_all(dir.join("folder/below")).unwrap();
    for number in 0..300 {
        fs::write(dir.join(format!("folder/{number}")), [number as u8]).unwrap();
    }
    assert_eq!(fs::read_dir(dir.join("folder")).unwrap().count(), 301);
    fs::remove_dir_all(dir.join("folder")).unwrap();
    assert!(!dir.join("folder").exists());
    commit(dir, b"last");
}

#[test]
fn without_what_older_kernels_lack_everything_works() {
    let all =
        "no_open_support,no_opendir_support,explicit_inval_data,handle_killpriv_v2,readdirplus";
    for without in all.split(',').chain([all]) {
        let folder = folder();
        let dir = folder.path().join("cache");
        done(
            kidafs()
                .env("KIDAFS_WITHOUT", without)
                .arg("mount")
                .arg(&dir),
        );
        let agreed = stats(&dir).kernel;
        assert!(
            without
                .split(',')
                .all(|not| agreed.iter().all(|name| name != not)),
            "{agreed:?}"
        );
        use_it(&dir);

        // Content stays in the page cache all the same.
        let path = dir.join(ENTRY);
        fs::read(&path).unwrap();
        let reads = |stats: kidafs::stats::Stats| stats.requests.get("read").copied().unwrap_or(0);
        let before = reads(stats(&dir));
        // Each look at the numbers is a read too.
        let of_a_look = reads(stats(&dir)) - before;
        for _ in 0..100 {
            assert_eq!(fs::read(&path).unwrap(), b"last");
        }
        assert_eq!(
            reads(stats(&dir)) - before,
            2 * of_a_look,
            "without {without}"
        );
        done(kidafs().arg("umount").arg(&dir));
        assert_eq!(fs::read(&path).unwrap(), b"last");
    }
}
