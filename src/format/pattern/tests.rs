use proptest::prelude::*;

use super::*;

const SOURCE: &str = "0123456789abcdef";
const CONTEXT: &str = "fedcba9876543210";

fn parse(pattern: &str, name: &str) -> Option<(String, String, String, Option<String>)> {
    let pattern: Pattern = pattern.parse().unwrap();
    let parts = pattern.parse_name(OsStr::new(name))?;
    Some((
        parts.version.to_owned(),
        parts.name.to_owned(),
        parts.source_hash.to_owned(),
        parts.context_hash.map(str::to_owned),
    ))
}

fn parts(
    version: &str,
    name: &str,
    source: &str,
    context: Option<&str>,
) -> Option<(String, String, String, Option<String>)> {
    Some((
        version.to_owned(),
        name.to_owned(),
        source.to_owned(),
        context.map(str::to_owned),
    ))
}

#[test]
fn the_default_pattern_is_what_its_text_parses_to() {
    assert_eq!(DEFAULT.parse::<Pattern>().unwrap(), Pattern::default());
    assert_eq!(Pattern::default().to_string(), DEFAULT);
}

#[test]
fn a_text_that_is_no_pattern_is_refused_with_its_reason() {
    let error = |text: &str| text.parse::<Pattern>().unwrap_err().to_string();
    assert!(error("{version}_{name}.pyc").contains("has no {hash}"));
    assert!(error("{hash}_{version}_{name}_{hash}").contains("{hash} more than once"));
    assert!(error("{version}{{x}}{name}{hash}").contains("brace"));
    assert!(error("{version}_{name!r}_{hash}").contains("has no {name}"));
    assert!(error("{version}_{name}_{hash}_{x}").contains("brace"));
    assert!(error("a/{version}{name}{hash}").contains("'/'"));
    assert!(error("{version}{name}{hash}\0").contains("NUL"));
    assert!(error("").contains("has no"));
}

#[test]
fn a_name_is_made_as_the_engine_makes_it() {
    let version = "py314_kida0_12_0_ast2".parse().unwrap();
    let make =
        |name, context| Pattern::default().file_name(&version, name, "0123456789abcdef99", context);
    assert_eq!(
        make(" a/b.html ", None).unwrap(),
        "__kida_py314_kida0_12_0_ast2_a_b.html_0123456789abcdef.pyc"
    );
    assert_eq!(
        make("x", Some("fedcba98765432100")).unwrap(),
        "__kida_py314_kida0_12_0_ast2_x_0123456789abcdef_fedcba9876543210.pyc"
    );
    assert!(make("a/../b", None).is_err());
}

#[test]
fn a_name_is_read_from_both_ends() {
    for version in [
        "py314",
        "py39",
        "py314_kida0_12_0_ast2",
        "py314_kida0_12_0_ast2_warn1",
        "py314_kidaunknown_ast2",
        "py314_kida0_13_0rc1_ast12",
        "py314_kida0_13_0_dev4_ast2_warn10",
    ] {
        for name in [
            "base.html",
            "a_b_c.html",
            "_",
            "",
            "ü ß.txt",
            "py314",
            "deadbeef",
            "_x_",
        ] {
            for context in [None, Some(CONTEXT), Some("abc")] {
                let tail = context.map(|c| format!("_{c}")).unwrap_or_default();
                let file = format!("__kida_{version}_{name}_{SOURCE}{tail}.pyc");
                assert_eq!(
                    parse(DEFAULT, &file),
                    parts(version, name, SOURCE, context),
                    "{file}"
                );
            }
        }
    }
}

#[test]
fn short_hashes_are_read() {
    assert_eq!(
        parse(DEFAULT, "__kida_py314_x_abc123.pyc"),
        parts("py314", "x", "abc123", None)
    );
    assert_eq!(
        parse(DEFAULT, "__kida_py314_x_a.pyc"),
        parts("py314", "x", "a", None)
    );
}

#[test]
fn what_could_be_read_in_two_ways_is_read_as_documented() {
    // A name that ends like a source hash.
    assert_eq!(
        parse(DEFAULT, &format!("__kida_py314_x_{SOURCE}_{CONTEXT}.pyc")),
        parts("py314", "x", SOURCE, Some(CONTEXT))
    );
    // With nothing left for a name, the first hash is the name.
    assert_eq!(
        parse(DEFAULT, &format!("__kida_py314_{SOURCE}_{CONTEXT}.pyc")),
        parts("py314", SOURCE, CONTEXT, None)
    );
    // A short source hash with a context hash is taken for a part of the name.
    assert_eq!(
        parse(DEFAULT, &format!("__kida_py314_x_abc_{CONTEXT}.pyc")),
        parts("py314", "x_abc", CONTEXT, None)
    );
    // A template called like an ABI tag, with nothing left for a name of its own.
    assert_eq!(
        parse(DEFAULT, &format!("__kida_py314_kida1_ast2_{SOURCE}.pyc")),
        parts("py314", "kida1_ast2", SOURCE, None)
    );
    // An ABI tag of an unknown shape is a part of the name.
    assert_eq!(
        parse(DEFAULT, &format!("__kida_py314_other_x_{SOURCE}.pyc")),
        parts("py314", "other_x", SOURCE, None)
    );
    // Names that only begin like an ABI tag.
    for name in [
        "kida.html_ast2",
        "kidame_ast2.html",
        "kida1_asterix",
        "kida1_ast2x",
    ] {
        assert_eq!(
            parse(DEFAULT, &format!("__kida_py314_{name}_{SOURCE}.pyc")),
            parts("py314", name, SOURCE, None)
        );
    }
}

#[test]
fn other_files_are_not_entries() {
    for name in [
        "",
        "x",
        "__kida_.pyc",
        "__kida_py314.pyc",
        "__kida_py314_x.pyc",
        "__kida_py314_my_notes.pyc",
        "__kida_py3_x_abc.pyc",
        "__kida_py314_x_0123456789ABCDEF.pyc",
        "__kida_py314_x_0123456789abcdef.pyc.tmp",
        "__kida_py314_x_0123456789abcdef0.pyc",
        "__jinja2_0123456789abcdef0123456789abcdef01234567.cache",
    ] {
        assert_eq!(parse(DEFAULT, name), None, "{name}");
    }
    let not_utf8 =
        std::os::unix::ffi::OsStrExt::from_bytes(b"__kida_py314_\xff_0123456789abcdef.pyc");
    assert_eq!(Pattern::default().parse_name(not_utf8), None);
}

#[test]
fn every_order_of_placeholders_is_read_back() {
    let fields = ["{version}", "{name}", "{hash}"];
    for [a, b, c] in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        for between in ["_", "-", "~~"] {
            let text = format!(
                "k{}{between}{}{between}{}.x",
                fields[a], fields[b], fields[c]
            );
            let pattern: Pattern = text.parse().unwrap();
            for tag in ["py314", "py314_kida0_12_0_ast2"] {
                let file = pattern
                    .file_name(&tag.parse().unwrap(), "a/b_c.html", SOURCE, Some(CONTEXT))
                    .unwrap();
                assert_eq!(
                    parse(&text, &file),
                    parts(tag, "a_b_c.html", SOURCE, Some(CONTEXT)),
                    "{text} {file}"
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn what_is_made_is_read_back(
        abi in prop::sample::select(vec!["py314", "py311_kida0_12_0_ast2", "py314_kida1_0_0rc1_ast2_warn1"]),
        // An end in letters beyond f, so that no part of the name reads as a hash.
        name in "[a-z0-9_./ü:\\\\ ]{0,40}[g-z]",
        source in "[0-9a-f]{16,64}",
        context in prop::option::of("[0-9a-f]{1,64}"),
    ) {
        prop_assume!(!name.starts_with("kida") && normalizes(&name));
        let pattern = Pattern::default();
        let file = pattern.file_name(&abi.parse().unwrap(), &name, &source, context.as_deref()).unwrap();
        let parts = pattern.parse_name(OsStr::new(&file)).unwrap();
        prop_assert_eq!(parts.version, abi);
        prop_assert_eq!(parts.name, flat_name(&name).unwrap());
        prop_assert_eq!(parts.source_hash, &source[..16]);
        prop_assert_eq!(parts.context_hash, context.as_ref().map(|c| &c[..c.len().min(16)]));
    }

    #[test]
    fn any_file_name_is_read_without_a_panic(
        pattern in "[a-z_.]{0,3}\\{version\\}[a-z_.]{0,2}\\{name\\}[a-z_.]{0,2}\\{hash\\}[a-z_.]{0,4}",
        name in "\\PC{0,60}|(py314|kida|_ast2|_warn1|_|[0-9a-f]{16}|é){0,12}",
    ) {
        let pattern: Pattern = pattern.parse().unwrap();
        if let Some(parts) = pattern.parse_name(OsStr::new(&name)) {
            let hash = [Some(parts.source_hash), parts.context_hash];
            let hash: Vec<_> = hash.into_iter().flatten().collect();
            let again = pattern.text
                .replace("{version}", parts.version)
                .replace("{hash}", &hash.join("_"))
                .replace("{name}", parts.name);
            prop_assert_eq!(again, name);
        }
    }

    #[test]
    fn any_pattern_text_is_parsed_or_refused(text in "\\PC{0,40}|(\\{|\\}|version|name|hash|_){0,20}") {
        if let Ok(pattern) = text.parse::<Pattern>() {
            prop_assert_eq!(pattern.to_string(), text);
        }
    }
}

fn normalizes(name: &str) -> bool {
    flat_name(name).is_ok_and(|flat| !flat.starts_with("kida") && !flat.starts_with("warn"))
}
