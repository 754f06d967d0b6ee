//! What each parser must hold for any input: that it returns, in bounded time and memory, and that what two
//! of them say of the same bytes agrees. Each function panics where it does not; none has a result.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kidafs::format::frame::Entry;
use kidafs::format::warnings::{Codes, check_warnings};
use kidafs::format::{
    Digests, Engines, File, Fingerprint, Kind, Mtime, Pattern, SourceState, VersionTag, importlib,
    is_unknown_format, jinja2, kida, mako, marshal, normalize_template_name, pickle,
};

/// A parser under test: it takes any bytes, and must neither panic nor hang.
pub type Target = fn(&[u8]);

/// All of them by name, as in `fuzz_targets/`.
pub const TARGETS: [(&str, Target); 11] = [
    ("engines", engines),
    ("entry", entry),
    ("manifest", manifest),
    ("marshal", marshal),
    ("mountinfo", mountinfo),
    ("names", names),
    ("options", options),
    ("patterns", patterns),
    ("pickle", pickle),
    ("sources", sources),
    ("warnings", warnings),
];

/// The tags under which an entry is judged: of an oldest engine, today's, the next one's and of an interpreter to come.
const TAGS: [&str; 4] = [
    "py314",
    "py314_kida0_12_0_ast2",
    "py314_kida0_12_0_ast2_warn1",
    "py399_kida9_0_0_ast9_warn2",
];

/// kida's entries.
pub fn entry(data: &[u8]) {
    let parsed = Entry::parse(data);
    if let Ok(entry) = &parsed {
        assert!(!is_unknown_format(data));
        // What is read is written again; a section that is there and empty is not told from one that is not.
        assert_eq!(entry.encode().as_deref(), Ok(data));
    }
    for tag in TAGS {
        match kida::judge(tag, data) {
            Ok(judged) => assert_eq!(
                judged.entry.code,
                parsed.as_ref().map(|e| e.code).unwrap_or_default()
            ),
            Err(fault) => assert_eq!(fault.is_unknown_format(), is_unknown_format(data)),
        }
    }
}

/// Marshal streams.
pub fn marshal(data: &[u8]) {
    let checked = marshal::check_any(data);
    let is_code = checked.is_ok_and(|checked| {
        assert!(checked.len <= data.len());
        checked.is_code
    });
    assert_eq!(marshal::check(data).is_ok(), is_code);
    assert_eq!(marshal::describe(data).is_ok(), is_code);
    let origin = marshal::origin(data);
    assert_eq!(origin.is_ok(), is_code);
    if let Ok(origin) = origin {
        assert!(
            origin
                .file_name
                .is_none_or(|name| name.len() <= marshal::MAX_LEN)
        );
    }
}

/// Pickles.
pub fn pickle(data: &[u8]) {
    let whole = pickle::read(data);
    assert_eq!(pickle::check(data), whole.map(|whole| whole.len));
    if let Ok(whole) = whole {
        // What is cut off is missed.
        assert!(pickle::check(&data[..whole.len - 1]).is_err());
    }
}

/// File names and version tags.
pub fn names(data: &[u8]) {
    let name = OsStr::from_bytes(data);
    let pattern = Pattern::default();
    pattern.temporary_name(name);
    importlib::parse_name(data);
    jinja2::key_of(data);
    Engines::default().by_name(Path::new(name));
    if let Some(parts) = pattern.parse_name(name) {
        let read: VersionTag = parts
            .version
            .parse()
            .unwrap_or_else(|error| panic!("{error}"));
        let again = pattern.file_name(&read, parts.name, parts.source_hash, parts.context_hash);
        // A name with a trimmed or refused part is one that the engine would not have made.
        if normalize_template_name(parts.name).is_ok_and(|name| name == parts.name)
            && !parts.name.contains([':', '/'])
        {
            assert_eq!(again.as_deref().map(OsStr::new), Ok(name));
        }
    }
}

/// Patterns: the first line is one, the rest a name.
pub fn patterns(data: &[u8]) {
    let line = data.iter().position(|&byte| byte == b'\n');
    let (pattern, name) = data.split_at(line.unwrap_or(data.len()));
    let Some(pattern) = std::str::from_utf8(pattern)
        .ok()
        .and_then(|text| text.parse().ok())
    else {
        return;
    };
    let pattern: Pattern = pattern;
    let name = OsStr::from_bytes(name.get(1..).unwrap_or_default());
    pattern.parse_name(name);
    pattern.temporary_name(name);
}

/// Names under which [`engines`] shows a content.
const PATHS: [&str; 6] = [
    "__kida_py314_kida0_12_0_ast2_a.html_0123456789abcdef.pyc",
    "__jinja2_0123456789abcdef0123456789abcdef01234567.cache",
    "blog/post.html.py",
    "srv/app/__pycache__/m.cpython-314.pyc",
    "srv/app/m.cpython-311.opt-1.pyc",
    "tmpabcdefgh",
];

/// Files of all engines.
pub fn engines(data: &[u8]) {
    let engines = Engines::default();
    jinja2::header(data);
    importlib::header(data);
    if let Some(header) = mako::header(data) {
        assert!(mako::may_begin(data));
        mako::details(&header);
    }
    for path in PATHS {
        let path = Path::new(path);
        let file = File {
            path,
            content: data,
            mtime: 0,
        };
        let identity = engines.identify(&file);
        match engines.recognise(path, data) {
            Kind::Entry(engine) => {
                assert!(identity.is_none_or(|identity| identity.engine == engine))
            }
            _ => assert!(identity.is_none()),
        }
        assert_eq!(
            engines.recognise(Path::new("notes.txt"), data),
            Kind::Foreign
        );
    }
}

/// Sources: any content is hashed as text in each way.
pub fn sources(data: &[u8]) {
    let wanted = [
        Fingerprint::Sha256("0123456789abcdef".to_owned()),
        Fingerprint::Sha1("0123456789abcdef0123456789abcdef01234567".to_owned()),
        Fingerprint::Keyed {
            magic: 3627,
            hash: [0; 8],
            checked: true,
        },
    ];
    let state = SourceState {
        mtime: Mtime {
            seconds: i64::from_le_bytes(*data.first_chunk().unwrap_or(&[0xff; 8])),
            nanos: 999_999_999,
        },
        size: data.len() as u64,
        digests: Some(Digests::of(data, &wanted)),
    };
    for fingerprint in &wanted {
        assert!(fingerprint.matches(&state).is_some());
    }
    let time = Fingerprint::MtimeSize { mtime: 0, size: 0 };
    assert!(time.matches(&state).is_some());
}

/// The warnings of v4 entries.
pub fn warnings(data: &[u8]) {
    let any = check_warnings(data, Codes::Any);
    let known = check_warnings(data, Codes::Known);
    if let Ok(known) = known {
        assert_eq!(any, Ok(known));
    }
}

/// mount(8)'s options and configuration files.
pub fn options(data: &[u8]) {
    kidafs::cli::try_options(data);
}

/// The kernel's table of mounts, in which everybody who can mount has a say.
pub fn mountinfo(data: &[u8]) {
    let mounts = kidafs::daemon::mountinfo::parse(data);
    assert!(mounts.len() <= data.len());
}

/// What a store of packs hands out: objects in their envelopes, manifests.
pub fn manifest(data: &[u8]) {
    use kidafs::remote::{envelope, manifest};
    let _ = envelope::split(data);
    let Ok(namespace) = "fuzz".parse() else {
        return;
    };
    let _ = manifest::Manifest::read(data, &namespace, &Engines::default());
    let _ = manifest::Epoch::read(data, &namespace);
}
