//! Entries that other releases of the engine wrote are read (`tests/fixtures/README.md`).

use std::fs;
use std::path::{Path, PathBuf};

use kidafs::format::marshal::describe;
use kidafs::format::warnings::parse_warnings;
use kidafs::format::{Entry, Format, Pattern};
use kidafs::kida::BytecodeCache;

fn fixture(release: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/entries")
        .join(release);
    let file = fs::read_dir(folder).unwrap().next().unwrap();
    file.unwrap().path()
}

#[test]
fn every_release_wrote_an_entry_that_is_got_whole() {
    for (release, format, version) in [
        ("kida-0.3.0", Format::Legacy, "py314"),
        ("kida-0.3.4", Format::V2, "py314"),
        ("kida-0.6.0", Format::V3, "py314"),
        (
            "kida-after-0.12.0",
            Format::V4,
            "py314_kida0_12_0_ast2_warn1",
        ),
    ] {
        let file = fixture(release);
        let pattern = Pattern::default();
        let name = pattern.parse_name(file.file_name().unwrap()).unwrap();
        assert_eq!((name.version, name.name), (version, "page.html"));
        assert_eq!(name.context_hash, Some("81e993871be7ad1a"));

        let bytes = fs::read(&file).unwrap();
        let entry = Entry::parse(&bytes).unwrap();
        assert_eq!(entry.format, format, "{release}");
        assert_eq!(entry.encode().unwrap(), bytes);
        let code = describe(entry.code).unwrap();
        assert_eq!(code.name, "<module>");
        assert!(
            code.functions
                .iter()
                .any(|function| function.name == "render")
        );

        // A copy, since a bad entry would be removed.
        let dir = tempfile::tempdir().unwrap();
        fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
        let cache = BytecodeCache::existing(dir.path(), pattern.clone())
            .with_version(version.parse().unwrap());
        let got = cache
            .get("page.html", name.source_hash, name.context_hash)
            .unwrap()
            .unwrap();
        assert_eq!((got.format(), got.code()), (format, entry.code));
        assert_eq!(
            (got.precomputed(), got.warnings()),
            (entry.precomputed, entry.warnings)
        );
        assert_eq!(got.ast(), entry.ast);
        assert_eq!(
            got.precomputed().is_some(),
            format >= Format::V3,
            "{release}"
        );
        assert_eq!(got.ast().is_some(), format >= Format::V2, "{release}");
    }
}

#[test]
fn a_compiler_warning_is_read() {
    let bytes = fs::read(fixture("kida-after-0.12.0")).unwrap();
    let section = Entry::parse(&bytes).unwrap().warnings.unwrap();
    let [warning] = &parse_warnings(section).unwrap()[..] else {
        panic!("one warning");
    };
    assert_eq!(
        (warning.code.as_str(), warning.line),
        ("K-WARN-001", Some(1))
    );
    assert_eq!(warning.template.as_deref(), Some("page.html"));
    assert!(warning.message.contains("upper") && warning.suggestion.is_some());
}
