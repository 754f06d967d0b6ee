//! `BytecodeCache` against the real engine: each reads what the other wrote, and both judge a damaged
//! entry alike.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::support::python::{Oracle, dir_arg, hex, unhex};
use kidafs::format::name::flat_name;
use kidafs::format::{Entry, Format, Pattern, hash_source, marshal};
use kidafs::kida::{BytecodeCache, Cached, Parts, Stored};
use serde_json::{Value, json};

/// Templates of more than fifty shapes, and those of the project if there are any.
fn templates() -> BTreeMap<String, String> {
    let shapes: &[(&str, &str)] = &[
        ("empty.html", ""),
        ("text.html", "just text\n"),
        ("unicode ü 日本.html", "grüße 😀 {{ 'ß' }}"),
        (
            "dir/sub/output.html",
            "{{ a }}{{ a.b }}{{ a['b'] }}{{ a[0] }}",
        ),
        (
            "filters.html",
            "{{ a | upper | default('x') }}{{ [1,2] | join(', ') }}",
        ),
        (
            "math.html",
            "{{ 1 + 2 * 3 - 4 / 5 % 6 ** 2 // 7 }}{{ 1.5 }}{{ 123456789012345678901234567890 }}",
        ),
        (
            "compare.html",
            "{{ a == 1 and b != 2 or not c }}{{ a in [1, 2] }}{{ a is defined }}",
        ),
        (
            "literals.html",
            "{{ [1, 'a', none, true, (1, 2)] }}{{ {'k': {'l': 1} } }}",
        ),
        ("if.html", "{% if a %}1{% elif b %}2{% else %}3{% endif %}"),
        (
            "for.html",
            "{% for x in xs %}{{ loop.index }}{{ x }}{% else %}none{% endfor %}",
        ),
        (
            "nested.html",
            "{% for x in xs %}{% for y in x %}{% if y %}{{ y }}{% endif %}{% endfor %}{% endfor %}",
        ),
        ("set.html", "{% set a = 1 %}{{ a }}"),
        (
            "def.html",
            "{% def greet(name, greeting='hi') %}{{ greeting }} {{ name }}{% enddef %}{{ greet('x') }}",
        ),
        (
            "base.html",
            "<html>{% block head %}{% endblock %}{% block body %}b{% endblock %}</html>",
        ),
        (
            "child.html",
            "{% extends 'base.html' %}{% block body %}child{% endblock %}",
        ),
        (
            "grandchild.html",
            "{% extends 'child.html' %}{% block head %}{{ a }}{% endblock %}",
        ),
        ("include.html", "{% include 'text.html' %}"),
        (
            "import.html",
            "{% from 'def.html' import greet %}{{ greet('x') }}",
        ),
        ("raw.html", "{% raw %}{{ not }}{% endraw %}"),
        ("comment.html", "{# nothing #}x"),
        ("whitespace.html", "  {%- if a -%}  x  {%- endif -%}  "),
        ("escape.html", "{{ '<b>' }}{{ a | safe }}"),
        ("ternary.html", "{{ 1 if a else 2 }}"),
        ("call.html", "{{ f(1, xs, k=2) }}{{ a.method().attr }}"),
        ("colon:name.html", "c"),
        ("quote'd \"name\".html", "q"),
    ];
    let mut templates: BTreeMap<String, String> = shapes
        .iter()
        .map(|(name, source)| ((*name).to_owned(), (*source).to_owned()))
        .collect();
    for i in 0..30usize {
        let mut source = String::new();
        for j in 0..i * 3 {
            match j % 5 {
                0 => source += &format!("<p class='c{j}'>{{{{ v{j} | default('{j}') }}}}</p>\n"),
                1 => {
                    source += &format!("{{% for x{j} in v{j} %}}{{{{ x{j} + {j} }}}}{{% endfor %}}")
                }
                2 => source += &format!("{{% if v{j} > {j} %}}{}{{% endif %}}", "t".repeat(j * 7)),
                3 => source += &format!("{{% set s{j} = [{j}, '{j}'] %}}{{{{ s{j} }}}}"),
                _ => {
                    source += &format!(
                        "{{% def f{j}(a, b={j}) %}}{{{{ a }}}}{{{{ b }}}}{{% enddef %}}{{{{ f{j}(1) }}}}"
                    )
                }
            }
        }
        templates.insert(format!("made/{i}.html"), source);
    }
    templates
}

/// The project's own templates. Those that need filters of their own do not compile here.
fn project_templates() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates");
    let mut templates = BTreeMap::new();
    add_folder(&root, &root, &mut templates);
    templates
}

fn add_folder(root: &Path, folder: &Path, templates: &mut BTreeMap<String, String>) {
    for file in fs::read_dir(folder).into_iter().flatten() {
        let path = file.unwrap().path();
        if path.is_dir() {
            add_folder(root, &path, templates);
        } else if let Ok(source) = fs::read_to_string(&path) {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            templates.insert(name.to_owned(), source);
        }
    }
}

/// Has the engine compile everything into `dir`, plain and with a static context.
fn compile(oracle: &mut Oracle, dir: &Path) -> Vec<Value> {
    let context = json!({ "a": { "b": [1, { "c": "ü" }] }, "xs": [[1, 2], [3]], "v0": "x" });
    let foldable = json!({
        "folded.html": "{% for x in a.b %}{{ x }}{{ foo }}{% endfor %}{{ bar(a.b) }}{{ bar(xs) }}",
        "folded2.html": "{{ f(xs) }}",
    });
    let question = json!({ "do": "compile", "dir": dir_arg(dir), "groups": [
        { "templates": templates() },
        { "templates": templates(), "static_context": context },
        { "templates": foldable, "static_context": context },
        { "templates": foldable, "static_context": context, "preserve_ast": false },
        { "templates": project_templates(), "lenient": true },
        { "templates": project_templates(), "lenient": true, "static_context": context },
        { "templates": { "no ast.html": "{{ a }}", "no ast 2.html": "{{ a }}{{ b }}" }, "preserve_ast": false },
    ]});
    let answer = oracle.ask(question);
    answer["stored"].as_array().unwrap().clone()
}

fn part(of: &Value, name: &str) -> Option<Vec<u8>> {
    of[name].as_str().map(unhex)
}

fn got_parts(got: &Cached) -> (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>) {
    let owned = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
    (
        got.code().to_vec(),
        owned(got.precomputed()),
        owned(got.ast()),
    )
}

#[test]
fn what_the_engine_stores_is_read_section_by_section_to_the_same_bytes() {
    let mut oracle = Oracle::start();
    let dir = tempfile::tempdir().unwrap();
    let version = oracle.version();
    let stored = compile(&mut oracle, dir.path());
    let cache =
        BytecodeCache::existing(dir.path(), Pattern::default()).with_version(version.clone());
    // The last one wins where two have the same key.
    let last: BTreeMap<&str, &Value> = stored
        .iter()
        .map(|one| (one["file"].as_str().unwrap(), one))
        .collect();
    assert!(last.len() >= 100, "{}", last.len());
    let mut formats = BTreeMap::<Format, usize>::new();
    for (file, one) in &last {
        let text = |name: &str| one[name].as_str();
        let (name, hash, context) = (
            text("name").unwrap(),
            text("source_hash").unwrap(),
            text("context_hash"),
        );
        assert_eq!(
            cache.path(name, hash, context).unwrap(),
            dir.path().join(file)
        );
        let got = cache.get(name, hash, context).unwrap().unwrap();
        let expected = (
            part(one, "code").unwrap(),
            part(one, "precomputed"),
            part(one, "ast"),
        );
        assert_eq!(got_parts(&got), expected, "{file}");
        *formats.entry(got.format()).or_default() += 1;

        // The same sections encode to the same file, and its name reads back.
        let entry = Entry {
            format: got.format(),
            code: got.code(),
            precomputed: got.precomputed(),
            warnings: None,
            ast: got.ast(),
        };
        assert_eq!(
            entry.encode().unwrap(),
            fs::read(dir.path().join(file)).unwrap()
        );
        let pattern = Pattern::default();
        let parsed = pattern.parse_name(OsStr::new(file)).unwrap();
        assert_eq!(parsed.version, version.as_str());
        // A name that ends like a hash is documented to be read as one.
        let reads_as_hash = flat_name(name)
            .unwrap()
            .rsplit('_')
            .next()
            .is_some_and(|end| end.len() == 16 && end.bytes().all(|b| b.is_ascii_hexdigit()));
        if !reads_as_hash {
            assert_eq!(parsed.source_hash, &hash[..16], "{file}");
            assert_eq!(parsed.context_hash, context, "{file}");
        }
    }
    assert!(
        formats[&Format::V2] > 50 && formats[&Format::V3] >= 2,
        "{formats:?}"
    );
    println!("{} entries: {formats:?}", last.len());
}

#[test]
fn what_is_set_here_is_loaded_by_the_engine() {
    let mut oracle = Oracle::start();
    let version = oracle.version();
    let theirs = tempfile::tempdir().unwrap();
    let stored = compile(&mut oracle, theirs.path());
    let ours = tempfile::tempdir().unwrap();
    let cache = BytecodeCache::new(ours.path(), Pattern::default())
        .unwrap()
        .with_version(version);
    for one in &stored {
        let text = |name: &str| one[name].as_str();
        let (name, hash, context) = (
            text("name").unwrap(),
            text("source_hash").unwrap(),
            text("context_hash"),
        );
        let (code, precomputed, ast) = (
            part(one, "code").unwrap(),
            part(one, "precomputed"),
            part(one, "ast"),
        );
        let parts = Parts {
            code: &code,
            precomputed: precomputed.as_deref(),
            ast: ast.as_deref(),
            warnings: None,
        };
        assert!(matches!(
            cache.set(name, hash, context, &parts),
            Ok(Stored::Yes(_))
        ));
        let answer = oracle.ask(json!({
            "do": "get", "dir": dir_arg(ours.path()), "name": name, "source_hash": hash, "context_hash": context,
            "code": one["code"], "expected_ast": one["ast"], "expected_precomputed": one["precomputed"],
        }));
        let expected = json!({ "hit": true, "same": true, "ast": ast.is_some(), "precomputed": precomputed.is_some() });
        assert_eq!(answer, expected, "{name}");
    }
}

#[test]
fn damaged_entries_are_judged_as_the_engine_judges_them() {
    let mut oracle = Oracle::start();
    let version = oracle.version();
    let made = tempfile::tempdir().unwrap();
    let stored = compile(&mut oracle, made.path());
    let dir = tempfile::tempdir().unwrap();
    let cache = BytecodeCache::new(dir.path(), Pattern::default())
        .unwrap()
        .with_version(version);
    // The smallest of each format.
    let mut samples = BTreeMap::new();
    for one in &stored {
        let bytes = fs::read(made.path().join(one["file"].as_str().unwrap())).unwrap();
        let format = Entry::parse(&bytes).unwrap().format;
        let smallest = samples.entry(format).or_insert_with(|| bytes.clone());
        if bytes.len() < smallest.len() {
            *smallest = bytes;
        }
    }
    samples.insert(Format::Legacy, part(&stored[0], "code").unwrap());
    let hash = hash_source("x");
    let path = cache.path("x", &hash, None).unwrap();
    let (mut compared, mut raised) = (0, 0);
    for (format, bytes) in &samples {
        // Every cut near the borders of sections, and some between.
        let near = |end: &usize| *end < 40 || end.is_multiple_of(13) || bytes.len() - end < 20;
        for end in (0..=bytes.len()).filter(near) {
            fs::write(&path, &bytes[..end]).unwrap();
            let ours = cache.get("x", &hash, None).unwrap();
            let ours_left = path.exists();
            fs::write(&path, &bytes[..end]).unwrap();
            let theirs = oracle.ask(json!({
                "do": "get_parts", "dir": dir_arg(dir.path()), "name": "x", "source_hash": hash,
            }));
            if theirs.get("raised").is_some() {
                // The engine lets some errors of the unmarshaller escape; here the entry is removed.
                assert!(
                    ours.is_none() && !ours_left,
                    "{format} cut at {end}: {theirs}"
                );
                raised += 1;
                continue;
            }
            let ours = json!({
                "code": ours.is_some(),
                "ast": ours.as_ref().is_some_and(|got| got.ast().is_some()),
                "precomputed": ours.as_ref().is_some_and(|got| got.precomputed().is_some()),
            });
            assert_eq!(ours, theirs, "{format} cut at {end}");
            assert_eq!(ours_left, path.exists(), "{format} cut at {end}");
            compared += 1;
        }
    }
    println!("{compared} compared, {raised} raised");
    assert!(compared > 200);
}

#[test]
fn old_and_new_formats_are_read_by_both_or_by_kidafs_alone() {
    let mut oracle = Oracle::start();
    let version = oracle.version();
    let made = tempfile::tempdir().unwrap();
    let stored = compile(&mut oracle, made.path());
    let one = stored
        .iter()
        .find(|one| !one["ast"].is_null() && !one["precomputed"].is_null())
        .unwrap();
    let (code, precomputed, ast) = (
        part(one, "code").unwrap(),
        part(one, "precomputed"),
        part(one, "ast"),
    );
    marshal::check(&code).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cache = BytecodeCache::new(dir.path(), Pattern::default())
        .unwrap()
        .with_version(version);
    let hash = hash_source("x");
    for format in [Format::Legacy, Format::V2, Format::V3, Format::V4] {
        let entry = Entry {
            format,
            code: &code,
            precomputed: precomputed.as_deref().filter(|_| format >= Format::V3),
            warnings: (format == Format::V4).then_some(
                br#"[{"code":"K-TPL-001","line":1,"message":"m","suggestion":null,"template":"x"}]"#,
            ),
            ast: ast.as_deref().filter(|_| format >= Format::V2),
        };
        fs::write(
            cache.path("x", &hash, None).unwrap(),
            entry.encode().unwrap(),
        )
        .unwrap();
        let got = cache.get("x", &hash, None).unwrap().unwrap();
        assert_eq!((got.format(), got.code()), (format, entry.code));
        assert_eq!(
            (got.precomputed(), got.warnings(), got.ast()),
            (entry.precomputed, entry.warnings, entry.ast)
        );
        if format == Format::V4 {
            // This engine is older than the format.
            continue;
        }
        let answer = oracle.ask(json!({
            "do": "get", "dir": dir_arg(dir.path()), "name": "x", "source_hash": hash, "code": one["code"],
            "expected_ast": entry.ast.map(hex), "expected_precomputed": entry.precomputed.map(hex),
        }));
        assert_eq!(
            (&answer["hit"], &answer["same"]),
            (&json!(true), &json!(true)),
            "{format}"
        );
    }
}
