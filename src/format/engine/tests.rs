use std::path::Path;

use proptest::prelude::*;

use super::*;

const KIDA: &str = "__kida_py314_base.html_0123456789abcdef.pyc";
const JINJA2: &str = "__jinja2_0123456789abcdef0123456789abcdef01234567.cache";
const CODE: &[u8] = b"\xe3\0\0\0\0";
const PYC: &[u8] = b"\x2b\x0e\r\n\0\0\0\0\x01\0\0\0\x02\0\0\0\xe3";
const MODULE: &[u8] = b"from mako import runtime, filters, cache\nUNDEFINED = runtime.UNDEFINED\n_magic_number = 10\n_modified_time = 1.5\n";

fn jinja2_entry() -> Vec<u8> {
    let mut bytes = b"j2\x80\x02K\x05.\x80\x02J\x0e\0\0\x03.\x80\x02X\x28\0\0\0".to_vec();
    bytes.extend(b"0123456789abcdef0123456789abcdef01234567q\0.\xe3");
    bytes
}

fn kind(path: &str, head: &[u8]) -> Kind {
    Engines::default().recognise(Path::new(path), head)
}

#[test]
fn an_entry_is_one_by_name_and_by_form() {
    let jinja2 = jinja2_entry();
    for (path, head, engine) in [
        (KIDA, CODE, Engine::Kida),
        (KIDA, b"\0KDA\0\0\0\0", Engine::Kida),
        (
            "deep/er/__kida_py314t_x_0123456789abcdef.pyc",
            b"\x02KDA",
            Engine::Kida,
        ),
        (JINJA2, &jinja2, Engine::Jinja2),
        (
            "shop/0123456789abcdef0123456789abcdef01234567",
            &jinja2,
            Engine::Jinja2,
        ),
        ("blog/post.html.py", MODULE, Engine::Mako),
        (
            "blog/__pycache__/post.html.cpython-314.pyc",
            PYC,
            Engine::Importlib,
        ),
    ] {
        assert_eq!(kind(path, head), Kind::Entry(engine), "{path}");
        assert!(kind("readme.txt", head).is_foreign(), "{path}");
        assert!(kind(path, b"hello, world, this is a letter").is_foreign());
        assert!(kind(path, b"").is_foreign(), "{path}");
    }
}

#[test]
fn a_later_format_is_an_entry_of_which_nothing_is_known() {
    for n in 3..=255u8 {
        let head = [n, b'K', b'D', b'A', 1, 2, 3];
        assert_eq!(kind(KIDA, &head), Kind::UnknownFormat(Engine::Kida));
        assert!(kind(KIDA, &head).is_entry());
        assert!(kind("photo.pyc", &head).is_foreign());
    }
    assert_eq!(
        kind(JINJA2, b"j2\x80\x02K\x07.new"),
        Kind::UnknownFormat(Engine::Jinja2)
    );
    assert_eq!(
        kind(
            "a.cpython-316.pyc",
            b"\x00\x10\r\n\x10\0\0\0\x01\0\0\0\x02\0\0\0"
        ),
        Kind::UnknownFormat(Engine::Importlib)
    );
}

#[test]
fn a_name_that_is_one_engines_own_is_told_from_one_that_is_anybodys() {
    assert_eq!(kind(KIDA, b"\0\0\0\0\0\0"), Kind::Misformed(Engine::Kida));
    assert_eq!(kind(JINJA2, b""), Kind::Misformed(Engine::Jinja2));
    assert_eq!(
        kind("a.cpython-314.pyc", b""),
        Kind::Misformed(Engine::Importlib)
    );
    assert_eq!(kind("settings.py", b"DEBUG = True\n"), Kind::Foreign);
    assert_eq!(kind("app.pyc", PYC), Kind::Foreign);
    let key = "0123456789abcdef0123456789abcdef01234567";
    assert_eq!(kind(key, b"a git object"), Kind::Foreign);
}

#[test]
fn a_temporary_file_is_one_by_a_name_that_no_one_else_would_choose() {
    for (name, engine) in [
        (format!("{KIDA}.a1_b2c3d.tmp"), Engine::Kida),
        (format!("{JINJA2}a1_b2c3d.tmp"), Engine::Jinja2),
        (
            "a.cpython-314.pyc.140243719287216".to_owned(),
            Engine::Importlib,
        ),
    ] {
        for head in [&b""[..], CODE, b"\0\0\0\0", b"anything"] {
            assert_eq!(kind(&name, head), Kind::Temporary(engine), "{name}");
        }
    }
    for head in [&b""[..], MODULE, &MODULE[..50], &[0; 64]] {
        assert_eq!(kind("tmpa1_b2c3d", head), Kind::Temporary(Engine::Mako));
    }
    for head in [&b"SQLite format 3"[..], b"\x89PNG", b"a letter", CODE] {
        assert_eq!(kind("tmpa1_b2c3d", head), Kind::Foreign);
    }
}

#[test]
fn another_pattern_of_kidas_has_its_own_entries() {
    let engines = Engines::new("{name}-{version}-{hash}.bin".parse().unwrap());
    let kind = |path: &str| engines.recognise(Path::new(path), CODE);
    assert_eq!(
        kind("x-py314-0123456789abcdef.bin"),
        Kind::Entry(Engine::Kida)
    );
    assert_eq!(kind(KIDA), Kind::Foreign);
}

proptest! {
    #[test]
    fn any_file_is_judged_without_a_panic(
        path in prop::collection::vec(any::<u8>(), 0..80),
        head in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let path = Path::new(OsStr::from_bytes(&path));
        let engines = Engines::default();
        engines.by_name(path);
        engines.recognise(path, &head);
    }

    #[test]
    fn what_is_foreign_by_name_is_foreign_whatever_it_holds(head in prop::collection::vec(any::<u8>(), 0..80)) {
        prop_assert_eq!(kind("notes.txt", &head), Kind::Foreign);
    }
}
