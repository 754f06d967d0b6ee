//! Deployments, edits and restarts: nothing alive leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kidafs::evict::Reason;

use crate::support::entries::names;
use crate::support::live::{Live, folder, until};
use crate::support::python::python;

/// Renders the given templates of a root with kida, each process a new one.
const RENDER: &str = "
import sys
from pathlib import Path
from kida import Environment, FileSystemLoader
from kida.bytecode_cache import BytecodeCache
env = Environment(loader=FileSystemLoader(sys.argv[2]), bytecode_cache=BytecodeCache(Path(sys.argv[1])))
for name in sys.argv[3:]:
    env.get_template(name).render()
";

const GRACES: [&str; 7] = [
    "--entry-timeout=200ms",
    "--superseded-grace=2s",
    "--orphaned-grace=3s",
    "--sweep-interval=300ms",
    "--max-age=1h",
    "--foreign-age=1h",
    "--stale-temp=1h",
];

fn render(cache: &Path, root: &Path, templates: &[&str]) {
    let output = Command::new(python())
        .args(["-B", "-c", RENDER])
        .args([cache, root])
        .args(templates)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn count(live: &Live, verdict: &str) -> u64 {
    let verdicts = live.stats().verdicts;
    let kida = verdicts.get("kida");
    kida.and_then(|kida| kida.get(verdict))
        .copied()
        .unwrap_or(0)
}

fn place() -> tempfile::TempDir {
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn after_edits_exactly_the_live_entries_are_left_and_two_files_of_one_flat_name_are_two_templates()
{
    let folder = place();
    let (dir, root, other) = (
        folder.path().join("cache"),
        folder.path().join("templates"),
        folder.path().join("other"),
    );
    let live = Live::start(&dir, &GRACES);
    write(&root, "blog/post.html", "one");
    write(&root, "blog_post.html", "two");
    write(&other, "base.html", "the other's base");
    let all = ["blog/post.html", "blog_post.html", "base.html"];
    for edit in 0..5 {
        write(&root, "base.html", &format!("base {edit}"));
        render(&dir, &root, &all);
    }
    render(&dir, &other, &["base.html"]);
    assert_eq!(names(&dir).len(), 8);
    until(
        "only the live ones are left",
        Duration::from_secs(60),
        || live.stats().evictions.get(&Reason::Superseded) == Some(&4),
    );
    assert_eq!(names(&dir).len(), 4);
    assert_eq!(count(&live, "fresh"), 4);
    // Nobody has used them meanwhile, and they stay.
    let commits = live.stats().commits;
    render(&dir, &root, &all);
    render(&dir, &other, &["base.html"]);
    assert_eq!(live.stats().commits, commits, "nothing was compiled again");
    live.unmount();
}

#[test]
fn a_template_that_is_removed_takes_its_entry_along_and_a_release_that_is_removed_takes_none_in_use()
 {
    let folder = place();
    let dir = folder.path().join("cache");
    let releases = folder.path().join("releases");
    let live = Live::start(&dir, &GRACES);
    let (blue, green) = (releases.join("41"), releases.join("42"));
    for release in [&blue, &green] {
        write(release, "a.html", "the same in both");
        write(release, "b.html", "this too");
    }
    write(&blue, "gone.html", "for now");
    render(&dir, &blue, &["a.html", "b.html", "gone.html"]);
    // One entry serves both: its name says the source's content, and it names the first one's file.
    render(&dir, &green, &["a.html", "b.html"]);
    assert_eq!(names(&dir).len(), 3);
    fs::remove_file(blue.join("gone.html")).unwrap();
    until("the orphan is gone", Duration::from_secs(60), || {
        live.stats().evictions.get(&Reason::Orphaned) == Some(&1)
    });
    fs::remove_dir_all(&blue).unwrap();
    let commits = live.stats().commits;
    for _ in 0..8 {
        render(&dir, &green, &["a.html", "b.html"]);
        std::thread::sleep(Duration::from_millis(700));
    }
    assert_eq!(live.stats().commits, commits, "nothing was compiled again");
    assert_eq!(names(&dir).len(), 2);
    live.unmount();
}

#[test]
fn verdicts_are_shown_with_their_sources_and_their_evidence() {
    let folder = place();
    let (dir, root) = (folder.path().join("cache"), folder.path().join("templates"));
    let graces = ["--superseded-grace=5m", "--sweep-interval=300ms"];
    let live = Live::start(&dir, &graces);
    for edit in 0..2 {
        write(&root, "page.html", &format!("edit {edit}"));
        render(&dir, &root, &["page.html"]);
    }
    until("both are judged", Duration::from_secs(60), || {
        count(&live, "fresh") == 1 && count(&live, "superseded") == 1
    });
    let json = |arguments: &[&str]| -> serde_json::Value {
        let output = crate::support::live::kidafs()
            .args(arguments)
            .arg(&dir)
            .output()
            .unwrap();
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let stale = json(&["ls", "--stale", "--json"]);
    assert_eq!(stale.as_array().unwrap().len(), 1, "{stale}");
    assert_eq!(stale[0]["engine"], "kida");
    assert_eq!(stale[0]["source"], root.join("page.html").to_str().unwrap());
    let metrics = fs::read_to_string(dir.join(".kidafs/metrics")).unwrap();
    assert!(metrics.contains("verdict=\"fresh\""), "{metrics}");
    live.unmount();
}
