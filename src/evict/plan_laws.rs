//! What holds for every plan.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::tests::{DAY, at, now};
use super::*;

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        6 => (0..6u64, 0..4u64, 0..3u32).prop_map(|(group, source, abi)| Kind::Entry {
            group,
            source,
            abi
        }),
        2 => Just(Kind::Other),
        1 => Just(Kind::Module),
        1 => Just(Kind::Staged),
        1 => Just(Kind::LeftOver),
        1 => Just(Kind::Foreign),
    ]
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    let since = || (0..100u64).prop_map(|day| at(day * DAY));
    prop_oneof![
        4 => Just(Verdict::Unknown),
        1 => Just(Verdict::Fresh),
        1 => since().prop_map(|since| Verdict::Superseded { since }),
        1 => since().prop_map(|since| Verdict::Orphaned { since }),
    ]
}

/// Files with coarse times, so that ties and neighbours of every limit are common.
fn any_entries() -> impl Strategy<Value = Vec<EntryInfo>> {
    let one = (
        any_kind(),
        any_verdict(),
        0..100u64,
        0..110u64,
        0..500u64,
        proptest::bool::weighted(0.15),
    );
    proptest::collection::vec(one, 0..60).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(
                |(id, (kind, verdict, committed, used, size, in_use))| EntryInfo {
                    id: id as u64,
                    kind,
                    verdict,
                    committed_at: at(committed * DAY),
                    last_used: at(used * DAY),
                    size,
                    in_use,
                },
            )
            .collect()
    })
}

fn any_age() -> impl Strategy<Value = Option<Duration>> {
    proptest::option::weighted(0.7, (1..60u64).prop_map(|n| Duration::from_secs(n * DAY)))
}

fn any_limits() -> impl Strategy<Value = Limits> {
    (
        1..15_000u64,
        1..70u64,
        [any_age(), any_age(), any_age(), any_age(), any_age()],
        0..20_000u64,
    )
        .prop_map(|(max_size, max_entries, ages, keep)| {
            let [
                max_age,
                superseded_grace,
                orphaned_grace,
                foreign_age,
                stale_temp,
            ] = ages;
            Limits {
                max_size,
                max_entries,
                adopted_size: 0,
                adopted_entries: 0,
                max_age,
                superseded_grace,
                orphaned_grace,
                foreign_age,
                stale_temp,
                keep_free: KeepFree::Bytes(keep),
            }
        })
}

fn any_free() -> impl Strategy<Value = Option<Free>> {
    proptest::option::of(
        (0..30_000u64, 1..600u64).prop_map(|(available, unit)| Free {
            available,
            total: 100_000,
            unit,
            ..Free::default()
        }),
    )
}

/// The table of rules, said again in the plainest way: whether `reason` may choose `entry` among
/// `all`.
fn deserves(entry: &EntryInfo, reason: Reason, all: &[EntryInfo], limits: &Limits) -> bool {
    let idle =
        |since: SystemTime, age: Option<Duration>| age.is_some_and(|age| since + age <= now());
    let used = entry.last_used.max(entry.committed_at);
    let movable = matches!(entry.kind, Kind::Entry { .. } | Kind::Other);
    match (reason, entry.kind) {
        (_, Kind::Foreign) | (Reason::Corrupt | Reason::Unsealed, _) => false,
        (Reason::StaleTemp, Kind::Staged | Kind::LeftOver) => idle(used, limits.stale_temp),
        (_, Kind::Staged | Kind::LeftOver) | (Reason::StaleTemp, _) => false,
        (Reason::Budget | Reason::Pressure, _) => movable,
        (_, _) if entry.verdict == Verdict::Fresh => false,
        (Reason::Expired, _) => movable && idle(used, limits.max_age),
        (Reason::Orphaned, _) => {
            matches!(entry.verdict, Verdict::Orphaned { since } if idle(used.max(since), limits.orphaned_grace))
        }
        (Reason::Superseded, kind) => match (entry.verdict, kind) {
            (Verdict::Superseded { since }, _) => idle(used.max(since), limits.superseded_grace),
            (Verdict::Unknown, Kind::Entry { group, source, .. }) => all.iter().any(|newer| {
                matches!(newer.kind, Kind::Entry { group: g, source: s, .. } if g == group && s != source)
                    && newer.committed_at > entry.committed_at
                    && idle(used.max(newer.committed_at), limits.superseded_grace.map(|g| g * BY_NAME))
            }),
            _ => false,
        },
        (Reason::ForeignVersion, Kind::Entry { abi, .. }) => {
            let of = |this: bool| {
                all.iter().filter(move |other| {
                    matches!(other.kind, Kind::Entry { abi: a, .. } if (a == abi) == this)
                })
            };
            let idle = |other: &EntryInfo| {
                other.verdict != Verdict::Fresh && idle(other.last_used.max(other.committed_at), limits.foreign_age)
            };
            limits.foreign_age.is_some() && of(true).all(idle) && !of(false).all(idle)
        }
        (Reason::ForeignVersion, _) => false,
    }
}

proptest! {
    #[test]
    fn every_victim_deserves_its_reason_and_every_survivor_none_by_age(
        entries in any_entries(), limits in any_limits(), free in any_free(),
    ) {
        let chosen = plan(&entries, now(), &limits, free).victims;
        let by_id: HashMap<u64, &EntryInfo> = entries.iter().map(|e| (e.id, e)).collect();
        for victim in &chosen {
            let info = by_id[&victim.id];
            prop_assert!(deserves(info, victim.reason, &entries, &limits), "{victim:?} {info:?}");
        }
        let gone: HashSet<u64> = chosen.iter().map(|victim| victim.id).collect();
        prop_assert_eq!(gone.len(), chosen.len(), "a victim is chosen once");
        for info in entries.iter().filter(|e| !e.in_use && !gone.contains(&e.id)) {
            for reason in [Reason::StaleTemp, Reason::Expired, Reason::Superseded, Reason::Orphaned, Reason::ForeignVersion] {
                prop_assert!(!deserves(info, reason, &entries, &limits), "{info:?} stays in spite of {reason}");
            }
        }
    }

    #[test]
    fn nothing_in_use_leaves(
        entries in any_entries(), limits in any_limits(), free in any_free(),
    ) {
        let in_use: HashSet<u64> = entries.iter().filter(|e| e.in_use).map(|e| e.id).collect();
        for victim in plan(&entries, now(), &limits, free).victims {
            prop_assert!(!in_use.contains(&victim.id));
        }
    }

    #[test]
    fn what_stays_is_within_the_budget_unless_that_is_out_of_reach(
        entries in any_entries(), limits in any_limits(), free in any_free(),
    ) {
        let plan = plan(&entries, now(), &limits, free);
        let gone: HashSet<u64> = plan.victims.iter().map(|victim| victim.id).collect();
        let stays: Vec<_> = entries
            .iter()
            .filter(|e| e.kind != Kind::Staged && !gone.contains(&e.id))
            .collect();
        let bytes: u64 = stays.iter().map(|e| e.size).sum();
        let within = bytes <= limits.max_size && stays.len() as u64 <= limits.max_entries;
        prop_assert_eq!(within, !plan.budget_out_of_reach);
        let fixed = |e: &&&EntryInfo| {
            e.in_use || !matches!(e.kind, Kind::Entry { .. } | Kind::Other)
        };
        let (files, least) = stays
            .iter()
            .filter(fixed)
            .fold((0, 0), |(files, bytes), e| (files + 1, bytes + e.size));
        prop_assert!(within || files > limits.max_entries || least > limits.max_size);
    }

    #[test]
    fn pressure_is_relieved_or_out_of_reach(
        entries in any_entries(), limits in any_limits(), free in any_free(),
    ) {
        let Some(space) = free else { return Ok(()) };
        let plan = plan(&entries, now(), &limits, free);
        let gone: HashSet<u64> = plan.victims.iter().map(|victim| victim.id).collect();
        let freed: u64 = entries
            .iter()
            .filter(|e| e.kind != Kind::Staged && gone.contains(&e.id))
            .map(|e| e.size.next_multiple_of(space.unit))
            .sum();
        let enough = space.available + freed >= limits.keep_free.bytes_of(space.total);
        prop_assert_eq!(enough, !plan.pressure_out_of_reach);
        let pressed = plan.victims.iter().any(|victim| victim.reason == Reason::Pressure);
        prop_assert!(!(pressed && plan.pressure_out_of_reach), "in vain");
    }

    #[test]
    fn the_least_recently_used_leave_first(
        entries in any_entries(), limits in any_limits(), free in any_free(),
    ) {
        let chosen = plan(&entries, now(), &limits, free).victims;
        let gone: HashMap<u64, Reason> =
            chosen.iter().map(|victim| (victim.id, victim.reason)).collect();
        let used = |e: &EntryInfo| (turn(e, &limits), e.last_used.max(e.committed_at));
        let latest = entries
            .iter()
            .filter(|e| matches!(gone.get(&e.id), Some(Reason::Budget | Reason::Pressure)))
            .map(used)
            .max();
        let earliest = entries
            .iter()
            .filter(|e| matches!(e.kind, Kind::Entry { .. } | Kind::Other))
            .filter(|e| !e.in_use && !gone.contains_key(&e.id))
            .map(used)
            .min();
        if let (Some(latest), Some(earliest)) = (latest, earliest) {
            prop_assert!(latest <= earliest);
        }
    }

    #[test]
    fn the_plan_does_not_depend_on_the_order_of_the_entries(
        (entries, shuffled) in any_entries()
            .prop_flat_map(|entries| (Just(entries.clone()), Just(entries).prop_shuffle())),
        limits in any_limits(), free in any_free(),
    ) {
        prop_assert_eq!(
            plan(&entries, now(), &limits, free),
            plan(&shuffled, now(), &limits, free)
        );
    }

    #[test]
    fn carrying_out_a_plan_leaves_nothing_to_plan(
        entries in any_entries(), limits in any_limits(),
    ) {
        // An entry that leaves takes the knowledge of its version's last look-up with it.
        let limits = Limits { foreign_age: None, ..limits };
        let gone: HashSet<u64> =
            plan(&entries, now(), &limits, None).victims.iter().map(|victim| victim.id).collect();
        let stays: Vec<_> =
            entries.into_iter().filter(|e| !gone.contains(&e.id)).collect();
        prop_assert_eq!(plan(&stays, now(), &limits, None).victims, []);
    }
}
