//! What it says is true.

use std::fs;

use std::process::Command;

use crate::support::mount::{Mount, done};
use crate::support::python::python;

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

/// Fills a folder with entries of real engines: two of Jinja2's, one of Mako's, one of the interpreter's.
const FILL: &str = "
import importlib, os, sys
cache, sources = sys.argv[1:]
for name in 'ab':
    open(f'{sources}/{name}.html', 'w').write(f'hello {name}')
open(f'{sources}/a_module.py', 'w').write('x = 1')
import jinja2
environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(sources), bytecode_cache=jinja2.FileSystemBytecodeCache(cache))
for name in 'ab':
    environment.get_template(f'{name}.html').render()
from mako.lookup import TemplateLookup
TemplateLookup([sources], module_directory=cache).get_template('a.html').render()
sys.path.insert(0, sources)
sys.pycache_prefix, sys.dont_write_bytecode = f'{cache}/bytecode', False
import a_module
";

#[test]
fn clear_and_inspect_know_the_entries_of_every_engine_and_leave_all_else() {
    let mount = Mount::new(&[]);
    let sources = tempfile::tempdir().unwrap();
    let mut fill = Command::new(python());
    fill.args(["-B", "-c", FILL])
        .arg(mount.dir())
        .arg(sources.path());
    done(&mut fill);
    fs::write(mount.path("notes.txt"), "mine").unwrap();
    let mut engines = Vec::new();
    let mut folders = vec![mount.dir().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("notes.txt") {
                let told = mount.run(&["inspect", "--json", path.to_str().unwrap()]);
                let facts: serde_json::Value = serde_json::from_str(&told).unwrap();
                engines.push(facts["engine"].as_str().unwrap().to_owned());
            }
        }
    }
    engines.sort();
    assert_eq!(engines, ["importlib", "jinja2", "jinja2", "mako"]);
    let dir = mount.dir().to_str().unwrap();
    assert_eq!(mount.run(&["clear", "--current-version-only", dir]), "0\n");
    assert_eq!(mount.run(&["clear", dir]), "4\n");
    assert_eq!(mount.run(&["clear", dir]), "0\n");
    assert_eq!(fs::read(mount.path("notes.txt")).unwrap(), b"mine");
}
