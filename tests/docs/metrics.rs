//! The metrics are valid, complete and as docs/METRICS.md lists them.

use std::collections::{BTreeMap, BTreeSet};

use kidafs::evict::Reason;
use kidafs::stats::metrics::{METRICS, render};
use kidafs::stats::{Bucket, Histogram, Lookups, Stats, Tier};

/// A daemon that has something of everything.
fn busy() -> Stats {
    let bucket = |up_to_microseconds, count| Bucket {
        up_to_microseconds,
        count,
    };
    let tier = |bytes| Tier {
        bytes,
        budget_bytes: 1 << 30,
        files: 3,
        budget_files: None,
    };
    Stats {
        version: "1.2.3".to_owned(),
        mount_point: "/srv/a \"b\"\\c\n".to_owned(),
        uptime_seconds: 12.5,
        digests: true,
        kernel: vec!["no_open_support".to_owned()],
        memory: tier(10),
        staging: tier(20),
        disk: Tier {
            budget_files: Some(100_000),
            ..tier(30)
        },
        lookups: Lookups { hits: 5, misses: 7 },
        commits: 6,
        commit_latency: Histogram {
            buckets: vec![bucket(10, 3), bucket(1_000_000, 2)],
            beyond: 1,
            sum_microseconds: 2_500_000,
        },
        sweeps: 4,
        evictions: BTreeMap::from([(Reason::StaleTemp, 2)]),
        requests: BTreeMap::from([("lookup".to_owned(), 12), ("read".to_owned(), 1)]),
        errors: BTreeMap::from([("ENOSPC".to_owned(), 1)]),
        ..Stats::default()
    }
}

/// A sample: its name, its labels, its value.
type Sample = (String, BTreeMap<String, String>, f64);

/// What a text in Prometheus's format 0.0.4 says, or the rule that it breaks. The rules are those of
/// the format's page and of `promtool check metrics`.
fn read(text: &str) -> Result<Vec<Sample>, String> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut described: BTreeMap<&str, (bool, Option<&str>)> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut current = "";
    if !text.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or(line)?;
            if help.is_empty() || described.insert(name, (true, None)).is_some() {
                return Err(format!("described twice, or not at all: {line}"));
            }
            current = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or(line)?;
            if name != current || !["counter", "gauge", "histogram"].contains(&kind) {
                return Err(format!("not of its description, or of no kind: {line}"));
            }
            if (kind == "counter") != name.ends_with("_total") {
                return Err(format!("only counters end in _total: {line}"));
            }
            described.insert(name, (true, Some(kind)));
        } else if line.starts_with('#') {
            return Err(format!("neither help nor type: {line}"));
        } else {
            let sample = sample(line).ok_or_else(|| format!("no sample: {line}"))?;
            let kind = described.get(current).and_then(|(_, kind)| *kind);
            let belongs = match (kind, sample.0.strip_prefix(current)) {
                (Some("histogram"), Some(end)) => ["_bucket", "_sum", "_count"].contains(&end),
                (Some(_), Some(end)) => end.is_empty(),
                _ => false,
            };
            if !belongs || !seen.insert(format!("{:?}{:?}", sample.0, sample.1)) {
                return Err(format!("among another's, or a second time: {line}"));
            }
            samples.push(sample);
        }
    }
    Ok(samples)
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut letters = name.bytes();
    let first = letters.next()?;
    if !(first.is_ascii_lowercase() && letters.all(|b| b.is_ascii_lowercase() || b == b'_')) {
        return None;
    }
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (key, value) = rest.split_once("=\"")?;
            let mut text = String::new();
            let mut letters = value.char_indices();
            let end = loop {
                match letters.next()? {
                    (at, '"') => break at,
                    (_, '\\') => text.push(match letters.next()?.1 {
                        'n' => '\n',
                        c @ ('"' | '\\') => c,
                        _ => return None,
                    }),
                    (_, c) => text.push(c),
                }
            };
            labels
                .insert(key.to_owned(), text)
                .is_none()
                .then_some(())?;
            rest = &value[end + 1..];
            match rest.split_at_checked(1)? {
                (",", more) => rest = more,
                ("}", more) => {
                    rest = more;
                    break;
                }
                _ => return None,
            }
        }
    }
    Some((
        name.to_owned(),
        labels,
        rest.strip_prefix(' ')?.parse().ok()?,
    ))
}

/// The value of the only sample that has the name and, beside `mount`, the label.
fn value(samples: &[Sample], name: &str, label: Option<(&str, &str)>) -> f64 {
    let mut found = samples.iter().filter(|(own, labels, _)| {
        own == name
            && label.is_none_or(|(key, value)| labels.get(key).map(String::as_str) == Some(value))
    });
    let (_, _, value) = found
        .next()
        .unwrap_or_else(|| panic!("no {name} {label:?}"));
    assert!(found.next().is_none(), "{name} {label:?}");
    *value
}

#[test]
fn the_text_follows_the_rules_of_the_format() {
    for stats in [busy(), Stats::default()] {
        let text = render(&stats);
        let samples = read(&text).unwrap_or_else(|broken| panic!("{broken}\nin\n{text}"));
        for (name, labels, _) in &samples {
            assert_eq!(labels["mount"], stats.mount_point, "{name}");
        }
    }
}

#[test]
fn the_values_are_those_of_the_stats_in_base_units() {
    let samples = read(&render(&busy())).unwrap();
    let value = |name, label| value(&samples, name, label);
    assert_eq!(value("kidafs_info", Some(("version", "1.2.3"))), 1.0);
    assert_eq!(value("kidafs_uptime_seconds", None), 12.5);
    assert_eq!(value("kidafs_digests", None), 1.0);
    assert_eq!(value("kidafs_tier_bytes", Some(("tier", "disk"))), 30.0);
    assert_eq!(
        value("kidafs_tier_budget_files", Some(("tier", "disk"))),
        1e5
    );
    assert_eq!(value("kidafs_lookups_total", Some(("result", "miss"))), 7.0);
    assert_eq!(
        value("kidafs_requests_total", Some(("operation", "lookup"))),
        12.0
    );
    assert_eq!(value("kidafs_errors_total", Some(("errno", "ENOSPC"))), 1.0);
    assert_eq!(value("kidafs_sweeps_total", None), 4.0);
    assert_eq!(
        value("kidafs_evictions_total", Some(("reason", "stale-temp"))),
        2.0
    );
    assert_eq!(
        value("kidafs_evictions_total", Some(("reason", "budget"))),
        0.0
    );
}

#[test]
fn a_histogram_is_cumulative_and_ends_with_all() {
    let samples = read(&render(&busy())).unwrap();
    let bucket = |bound| {
        value(
            &samples,
            "kidafs_commit_duration_seconds_bucket",
            Some(("le", bound)),
        )
    };
    assert_eq!(bucket("0.00001"), 3.0);
    assert_eq!(bucket("1.0"), 5.0);
    assert_eq!(bucket("+Inf"), 6.0);
    let total = |end| {
        value(
            &samples,
            &format!("kidafs_commit_duration_seconds_{end}"),
            None,
        )
    };
    assert_eq!((total("count"), total("sum")), (6.0, 2.5));
}

#[test]
fn the_page_lists_every_metric_and_no_other() {
    let page = include_str!("../../docs/METRICS.md");
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `kidafs_"))
        .collect();
    let wanted: Vec<String> = METRICS
        .iter()
        .map(|metric| {
            let label = metric.label.map_or_else(String::new, |l| format!("`{l}`"));
            format!(
                "| `{}` | {} | {label} | {} |",
                metric.name,
                metric.kind(),
                metric.help
            )
        })
        .collect();
    assert_eq!(rows, wanted, "the table should be\n{}", wanted.join("\n"));
}

#[test]
fn the_checker_finds_what_is_wrong() {
    let good = "# HELP a_total x\n# TYPE a_total counter\na_total{b=\"c\"} 1\n";
    assert_eq!(read(good).unwrap().len(), 1);
    for (from, to) in [
        ("counter", "gauge"),
        ("# TYPE a_total", "# TYPE a"),
        ("a_total{", "b_total{"),
        ("} 1\n", "} one\n"),
        ("} 1\n", "} 1\na_total{b=\"c\"} 2\n"),
        ("\"c\"}", "\"c}"),
        ("} 1\n", "} 1\n# EOF\n"),
        ("} 1\n", "} 1"),
    ] {
        assert!(good.contains(from));
        let bad = good.replacen(from, to, 1);
        assert!(read(&bad).is_err(), "{bad}");
    }
}
