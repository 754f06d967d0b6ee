//! What it says is true.

use std::fs;

use crate::support::mount::Mount;

#[test]
fn a_miss_is_counted_once_for_an_engines_question_and_not_for_the_kernels_own() {
    const TEMPLATES: u64 = 21;
    let mount = Mount::new(&["--supervise=false"]);
    let before = mount.stats().lookups;
    for number in 0..TEMPLATES {
        let name = format!("__kida_py314_page{number}_0123456789abcdef.pyc");
        assert!(fs::read(mount.path(&name)).is_err());
        let temporary = mount.path(format!("{name}.abcdefgh.tmp"));
        fs::write(&temporary, "content").unwrap();
        fs::rename(temporary, mount.path(&name)).unwrap();
    }
    let after = mount.stats().lookups;
    assert_eq!(after.misses - before.misses, TEMPLATES);
    assert_eq!(after.hits, before.hits);
}
