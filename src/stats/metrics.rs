//! The same facts as metrics: the contents of `.kidafs/metrics`.
//!
//! Names, kinds, labels and units are in [`METRICS`] and nowhere else; docs/METRICS.md is compared with it.
//! The text is Prometheus's own format (version 0.0.4), which its servers, its node exporter's textfile
//! collector and most agents read. Each sample has the label `mount`, so that the files of several mounts
//! can be collected side by side.

use std::borrow::Cow;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{Stats, Tier};
use crate::evict::Reason;

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// As in the text; a counter's ends in `_total`.
    pub name: &'static str,
    /// What it is about. It ends without a full stop.
    pub help: &'static str,
    /// The label that tells its samples apart, if there is one.
    pub label: Option<&'static str>,
    read: Read,
}

/// Where its values come from, which is also what kind of metric it is.
#[derive(Debug, Clone, Copy)]
enum Read {
    /// Goes up and down.
    Gauge(fn(&Stats) -> f64),
    Gauges(fn(&Stats) -> Labelled<f64>),
    /// Only goes up while the daemon lives.
    Counter(fn(&Stats) -> u64),
    /// The same in seconds.
    Time(fn(&Stats) -> f64),
    Counters(fn(&Stats) -> Labelled<u64>),
    /// Durations in seconds.
    Durations(fn(&Stats) -> &super::Histogram),
}

/// Values with that of their label.
type Labelled<T> = Vec<(String, T)>;

impl Metric {
    /// `gauge`, `counter` or `histogram`.
    pub fn kind(&self) -> &'static str {
        match self.read {
            Read::Gauge(_) | Read::Gauges(_) => "gauge",
            Read::Counter(_) | Read::Counters(_) | Read::Time(_) => "counter",
            Read::Durations(_) => "histogram",
        }
    }

    fn metric_type(&self) -> MetricType {
        match self.read {
            Read::Gauge(_) | Read::Gauges(_) => MetricType::Gauge,
            Read::Counter(_) | Read::Counters(_) | Read::Time(_) => MetricType::Counter,
            Read::Durations(_) => MetricType::Histogram,
        }
    }

    /// The name as OpenMetrics has it in descriptions: without the end that a counter's samples get.
    fn family(&self) -> &'static str {
        self.name.strip_suffix(COUNTER_END).unwrap_or(self.name)
    }

    fn encode(&self, stats: &Stats, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let key = self.label.unwrap_or_default();
        match self.read {
            Read::Gauge(read) => encoder.encode_gauge(&read(stats)),
            Read::Gauges(read) => read(stats).iter().try_for_each(|(label, value)| {
                encoder
                    .encode_family(&[(key, label.as_str())])?
                    .encode_gauge(value)
            }),
            Read::Counter(read) => encoder.encode_counter::<NoLabelSet, _, f64>(&read(stats), None),
            Read::Time(read) => encoder.encode_counter::<NoLabelSet, _, f64>(&read(stats), None),
            Read::Counters(read) => read(stats).iter().try_for_each(|(label, value)| {
                encoder
                    .encode_family(&[(key, label.as_str())])?
                    .encode_counter::<NoLabelSet, _, f64>(value, None)
            }),
            Read::Durations(read) => {
                let histogram = read(stats);
                let bounds = histogram
                    .buckets
                    .iter()
                    .map(|bucket| (seconds(bucket.up_to_microseconds), bucket.count));
                let buckets: Vec<_> = bounds.chain([(f64::INFINITY, histogram.beyond)]).collect();
                encoder.encode_histogram::<NoLabelSet>(
                    seconds(histogram.sum_microseconds),
                    histogram.count(),
                    &buckets,
                    None,
                )
            }
        }
    }
}

const COUNTER_END: &str = "_total";

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn tiers(stats: &Stats, read: fn(&Tier) -> Option<u64>) -> Labelled<f64> {
    [
        ("memory", &stats.memory),
        ("staging", &stats.staging),
        ("disk", &stats.disk),
        ("foreign", &stats.foreign),
    ]
    .into_iter()
    .filter_map(|(name, tier)| Some((name.to_owned(), read(tier)? as f64)))
    .collect()
}

/// All metrics, in the order of the text.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "kidafs_info",
        help: "1, labelled with the daemon's version",
        label: Some("version"),
        read: Read::Gauges(|stats| vec![(stats.version.clone(), 1.0)]),
    },
    Metric {
        name: "kidafs_uptime_seconds",
        help: "Seconds since the mount answered; all counters began at 0 then",
        label: None,
        read: Read::Gauge(|stats| stats.uptime_seconds),
    },
    Metric {
        name: "kidafs_read_only",
        help: "1 if writes are refused, else 0",
        label: None,
        read: Read::Gauge(|stats| f64::from(u8::from(stats.read_only))),
    },
    Metric {
        name: "kidafs_digests",
        help: "1 if each entry's digest is stored and checked, 0 where the backing filesystem has no user extended attributes",
        label: None,
        read: Read::Gauge(|stats| f64::from(u8::from(stats.digests))),
    },
    Metric {
        name: "kidafs_kernel_feature",
        help: "1 for each capability that the kernel agreed to",
        label: Some("feature"),
        read: Read::Gauges(|stats| {
            stats
                .kernel
                .iter()
                .map(|name| (name.clone(), 1.0))
                .collect()
        }),
    },
    Metric {
        name: "kidafs_tier_bytes",
        help: "Content in the tier, in bytes",
        label: Some("tier"),
        read: Read::Gauges(|stats| tiers(stats, |tier| Some(tier.bytes))),
    },
    Metric {
        name: "kidafs_tier_budget_bytes",
        help: "The limit of kidafs_tier_bytes, in bytes",
        label: Some("tier"),
        read: Read::Gauges(|stats| {
            tiers(stats, |tier| {
                Some(tier.budget_bytes).filter(|budget| *budget > 0)
            })
        }),
    },
    Metric {
        name: "kidafs_tier_files",
        help: "Files with content in the tier",
        label: Some("tier"),
        read: Read::Gauges(|stats| tiers(stats, |tier| Some(tier.files))),
    },
    Metric {
        name: "kidafs_tier_budget_files",
        help: "The limit of kidafs_tier_files, for tiers that have one",
        label: Some("tier"),
        read: Read::Gauges(|stats| tiers(stats, |tier| tier.budget_files)),
    },
    Metric {
        name: "kidafs_entries",
        help: "Entries by what their sources say of them, as of the latest look",
        label: Some("verdict"),
        read: Read::Gauges(|stats| {
            let count = |verdict: &str| {
                let engines = stats.verdicts.values();
                engines
                    .filter_map(|counts| counts.get(verdict))
                    .sum::<u64>() as f64
            };
            let all = ["fresh", "superseded", "orphaned", "unknown"].into_iter();
            all.map(|verdict| (verdict.to_owned(), count(verdict)))
                .collect()
        }),
    },
    Metric {
        name: "kidafs_out_of_reach",
        help: "1 if evicting cannot reach the limit (budget: of the disk tier, free: of free space on the backing filesystem), else 0",
        label: Some("limit"),
        read: Read::Gauges(|stats| {
            let flag = |set: bool| f64::from(u8::from(set));
            vec![
                ("budget".to_owned(), flag(stats.budget_out_of_reach)),
                ("free".to_owned(), flag(stats.free_space_out_of_reach)),
            ]
        }),
    },
    Metric {
        name: "kidafs_backing_available_bytes",
        help: "What the backing filesystem has left for the daemon's user, in bytes",
        label: None,
        read: Read::Gauge(|stats| stats.backing_available_bytes as f64),
    },
    Metric {
        name: "kidafs_backing_size_bytes",
        help: "The size of the whole backing filesystem, in bytes",
        label: None,
        read: Read::Gauge(|stats| stats.backing_total_bytes as f64),
    },
    Metric {
        name: "kidafs_lookups_total",
        help: "Look-ups of file names that reached the daemon, by whether the name was there; those that the kernel's cache answers are not among them",
        label: Some("result"),
        read: Read::Counters(|stats| {
            vec![
                ("hit".to_owned(), stats.lookups.hits),
                ("miss".to_owned(), stats.lookups.misses),
            ]
        }),
    },
    Metric {
        name: "kidafs_commits_total",
        help: "Files that were renamed into place, or written in place and persisted",
        label: None,
        read: Read::Counter(|stats| stats.commits),
    },
    Metric {
        name: "kidafs_commit_duration_seconds",
        help: "The time that a commit took in the daemon, in seconds",
        label: None,
        read: Read::Durations(|stats| &stats.commit_latency),
    },
    Metric {
        name: "kidafs_sweeps_total",
        help: "Rounds of the evictor",
        label: None,
        read: Read::Counter(|stats| stats.sweeps),
    },
    Metric {
        name: "kidafs_evictions_total",
        help: "Files that the daemon removed, by reason",
        label: Some("reason"),
        read: Read::Counters(|stats| {
            // Each from the start, so that the first eviction is an increase and not a new series.
            let count = |reason| stats.evictions.get(reason).copied().unwrap_or(0);
            let all = Reason::ALL.iter();
            all.map(|reason| (reason.to_string(), count(reason)))
                .collect()
        }),
    },
    Metric {
        name: "kidafs_evicted_bytes_total",
        help: "What these evictions freed, in bytes",
        label: None,
        read: Read::Counter(|stats| stats.evicted_bytes),
    },
    Metric {
        name: "kidafs_quarantined_files",
        help: "Entries that are set aside because their content did not match their digest",
        label: None,
        read: Read::Gauge(|stats| stats.quarantined as f64),
    },
    Metric {
        name: "kidafs_requests_total",
        help: "Messages from the kernel, by operation; those that have not come are left out",
        label: Some("operation"),
        read: Read::Counters(|stats| stats.requests.clone().into_iter().collect()),
    },
    Metric {
        name: "kidafs_poll_seconds_total",
        help: "Time that readers spent polling for the next message instead of sleeping, in seconds",
        label: None,
        read: Read::Time(|stats| stats.poll_seconds),
    },
    Metric {
        name: "kidafs_latency_held_seconds_total",
        help: "Time for which the CPU-latency request was held, up to the end of the last burst, in seconds",
        label: None,
        read: Read::Time(|stats| stats.latency_held_seconds),
    },
    Metric {
        name: "kidafs_errors_total",
        help: "Replies that were errors, by errno; those that have not occurred are left out",
        label: Some("errno"),
        read: Read::Counters(|stats| stats.errors.clone().into_iter().collect()),
    },
];

/// The metrics of a mount in Prometheus's text format.
pub fn render(stats: &Stats) -> String {
    let mount = Cow::Owned(stats.mount_point.clone());
    let mut registry = Registry::with_labels([(Cow::Borrowed("mount"), mount)].into_iter());
    registry.register_collector(Box::new(Snapshot(stats.clone())));
    let mut text = String::new();
    // Writing to a string cannot fail, and nothing else here does.
    let _ = text::encode_registry(&mut text, &registry);
    descriptions_of_prometheus(&text)
}

/// The registry asks whoever is in it for values; what is here was read at one time.
#[derive(Debug)]
struct Snapshot(Stats);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        METRICS.iter().try_for_each(|metric| {
            let kind = metric.metric_type();
            let described = encoder.encode_descriptor(metric.family(), metric.help, None, kind)?;
            metric.encode(&self.0, described)
        })
    }
}

/// The library writes OpenMetrics, where a counter is described without the `_total` of its samples. To
/// Prometheus's older format, which is otherwise the same here, that would be a description of nothing.
fn descriptions_of_prometheus(text: &str) -> String {
    let mut lines = String::with_capacity(text.len() + 1024);
    for line in text.lines() {
        match described(line) {
            Some((head, metric, rest)) if metric.kind() == "counter" => {
                lines.extend([head, metric.name, rest]);
            }
            _ => lines.push_str(line),
        }
        lines.push('\n');
    }
    lines
}

/// Splits a line of description at its metric's name.
fn described(line: &str) -> Option<(&str, &'static Metric, &str)> {
    let head = ["# HELP ", "# TYPE "]
        .into_iter()
        .find(|head| line.starts_with(head))?;
    let (name, _) = line[head.len()..].split_once(' ')?;
    let metric = METRICS.iter().find(|metric| metric.family() == name)?;
    let (head, rest) = line.split_at(head.len());
    Some((head, metric, &rest[name.len()..]))
}
