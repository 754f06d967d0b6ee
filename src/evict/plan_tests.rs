//! The rules one by one, and what holds for every plan.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// The present of these tests: 100 days after the epoch.
fn now() -> SystemTime {
    at(100 * DAY)
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// So many seconds before the present.
fn ago(seconds: u64) -> SystemTime {
    now() - Duration::from_secs(seconds)
}

fn limits() -> Limits {
    Limits::from(&Config::default())
}

/// Source 1 of template `group`, version 0, of 100 bytes, committed and used `age` seconds ago.
fn entry(id: u64, group: u64, age: u64) -> EntryInfo {
    EntryInfo {
        id,
        kind: Kind::Entry {
            group,
            source: 1,
            abi: 0,
        },
        committed_at: ago(age),
        last_used: ago(age),
        size: 100,
        in_use: false,
    }
}

fn with_source(mut info: EntryInfo, new: u64) -> EntryInfo {
    if let Kind::Entry { source, .. } = &mut info.kind {
        *source = new;
    }
    info
}

fn with_abi(mut info: EntryInfo, new: u32) -> EntryInfo {
    if let Kind::Entry { abi, .. } = &mut info.kind {
        *abi = new;
    }
    info
}

fn victims(entries: &[EntryInfo], limits: &Limits) -> Vec<(u64, Reason)> {
    plan(entries, now(), limits, None)
        .into_iter()
        .map(|victim| (victim.id, victim.reason))
        .collect()
}

#[test]
fn nothing_leaves_without_a_rule() {
    let entries = [entry(1, 1, 0), entry(2, 2, 29 * DAY)];
    assert_eq!(victims(&entries, &limits()), []);
    assert_eq!(victims(&[], &limits()), []);
}

#[test]
fn a_staged_file_leaves_an_hour_after_the_last_write() {
    let staged = |id, age| EntryInfo {
        kind: Kind::Staged,
        ..entry(id, 0, age)
    };
    let entries = [staged(1, HOUR - 1), staged(2, HOUR)];
    assert_eq!(victims(&entries, &limits()), [(2, Reason::StaleTemp)]);
}

#[test]
fn an_entry_expires_thirty_days_after_its_last_use() {
    let mut looked_up = entry(1, 1, 90 * DAY);
    looked_up.last_used = ago(30 * DAY - 1);
    let mut other = entry(3, 0, 30 * DAY);
    other.kind = Kind::Other;
    let entries = [looked_up, entry(2, 2, 30 * DAY), other];
    assert_eq!(
        victims(&entries, &limits()),
        [(2, Reason::Expired), (3, Reason::Expired)]
    );
}

#[test]
fn a_fresh_commit_counts_as_used_whatever_its_access_time_says() {
    let mut fresh = entry(1, 1, 0);
    fresh.last_used = SystemTime::UNIX_EPOCH;
    assert_eq!(victims(&[fresh], &limits()), []);
}

#[test]
fn times_that_lie_ahead_make_nothing_old() {
    let mut ahead = entry(1, 1, 0);
    ahead.committed_at = now() + Duration::from_secs(90 * DAY);
    ahead.last_used = ahead.committed_at;
    assert_eq!(victims(&[ahead], &limits()), []);
}

#[test]
fn an_old_source_leaves_an_hour_after_the_new_one_came() {
    let old = entry(1, 1, 10 * DAY);
    let fresh = |age| with_source(entry(2, 1, age), 2);
    assert_eq!(victims(&[old, fresh(HOUR - 1)], &limits()), []);
    assert_eq!(
        victims(&[old, fresh(HOUR)], &limits()),
        [(1, Reason::Superseded)]
    );
}

#[test]
fn an_old_source_that_is_still_looked_up_stays() {
    let mut old = entry(1, 1, 10 * DAY);
    old.last_used = ago(HOUR - 1);
    let fresh = with_source(entry(2, 1, 2 * DAY), 2);
    assert_eq!(victims(&[old, fresh], &limits()), []);
}

#[test]
fn the_grace_counts_from_the_first_newer_source() {
    let old = entry(1, 1, 10 * DAY);
    let second = with_source(entry(2, 1, 2 * HOUR), 2);
    let third = with_source(entry(3, 1, 60), 3);
    assert_eq!(
        victims(&[third, old, second], &limits()),
        [(1, Reason::Superseded)]
    );
}

#[test]
fn one_source_in_two_contexts_is_not_superseded_by_itself() {
    let entries = [entry(1, 1, 10 * DAY), entry(2, 1, 9 * DAY)];
    assert_eq!(victims(&entries, &limits()), []);
    let newer = with_source(entry(3, 1, 2 * HOUR), 2);
    assert_eq!(
        victims(&[entries[0], newer, entries[1]], &limits()),
        [(1, Reason::Superseded), (2, Reason::Superseded)]
    );
}

#[test]
fn sources_of_one_instant_do_not_supersede_each_other() {
    let entries = [entry(1, 1, DAY), with_source(entry(2, 1, DAY), 2)];
    assert_eq!(victims(&entries, &limits()), []);
}

#[test]
fn another_template_supersedes_nothing() {
    let entries = [entry(1, 1, 2 * DAY), with_source(entry(2, 2, DAY), 2)];
    assert_eq!(victims(&entries, &limits()), []);
}

#[test]
fn an_idle_version_leaves_while_another_is_in_use() {
    let old = with_abi(entry(1, 1, 7 * DAY), 313);
    let live = with_abi(entry(2, 2, 7 * DAY - 1), 314);
    assert_eq!(victims(&[old, live], &limits()), [(1, Reason::Foreign)]);
}

#[test]
fn one_look_up_keeps_a_whole_version() {
    let idle = with_abi(entry(1, 1, 20 * DAY), 313);
    let used = with_abi(entry(2, 2, DAY), 313);
    let live = with_abi(entry(3, 3, DAY), 314);
    assert_eq!(victims(&[idle, used, live], &limits()), []);
}

#[test]
fn a_holiday_makes_nothing_foreign() {
    let entries = [
        with_abi(entry(1, 1, 20 * DAY), 313),
        with_abi(entry(2, 2, 14 * DAY), 314),
    ];
    assert_eq!(victims(&entries, &limits()), []);
}

#[test]
fn a_rule_that_is_off_chooses_nothing() {
    let off = Limits {
        max_age: None,
        superseded_grace: None,
        foreign_age: None,
        stale_temp: None,
        ..limits()
    };
    let entries = [
        entry(1, 1, 90 * DAY),
        with_source(entry(2, 1, 80 * DAY), 2),
        with_abi(entry(3, 3, 1), 314),
        EntryInfo {
            kind: Kind::Staged,
            ..entry(4, 0, 90 * DAY)
        },
    ];
    assert_eq!(victims(&entries, &off), []);
}

#[test]
fn over_the_bytes_the_least_recently_used_leave_down_to_ninety_per_cent() {
    let entries: Vec<_> = (0..11).map(|i| entry(i, i, 100 - i)).collect();
    let tight = Limits {
        max_size: 1000,
        ..limits()
    };
    assert_eq!(victims(&entries[..10], &tight), []);
    assert_eq!(
        victims(&entries, &tight),
        [(0, Reason::Budget), (1, Reason::Budget)]
    );
}

#[test]
fn over_the_number_of_entries_the_least_recently_used_leave() {
    let entries: Vec<_> = (0..3).map(|i| entry(i, i, 100 - i)).collect();
    let tight = Limits {
        max_entries: 2,
        ..limits()
    };
    assert_eq!(victims(&entries, &tight), [(0, Reason::Budget)]);
    let single = Limits {
        max_entries: 1,
        ..limits()
    };
    assert_eq!(
        victims(&entries, &single),
        [(0, Reason::Budget), (1, Reason::Budget)]
    );
}

#[test]
fn what_leaves_for_its_age_is_not_counted_against_the_budget() {
    let mut entries: Vec<_> = (0..10).map(|i| entry(i, i, 100)).collect();
    entries.push(entry(10, 10, 40 * DAY));
    let tight = Limits {
        max_size: 1000,
        ..limits()
    };
    assert_eq!(victims(&entries, &tight), [(10, Reason::Expired)]);
}

#[test]
fn staged_files_are_neither_counted_nor_chosen_for_the_budget() {
    let entries = [
        entry(1, 1, 50),
        EntryInfo {
            kind: Kind::Staged,
            size: 1 << 40,
            ..entry(2, 0, 60)
        },
    ];
    let tight = Limits {
        max_size: 100,
        ..limits()
    };
    assert_eq!(victims(&entries, &tight), []);
}

#[test]
fn a_filesystem_that_fills_up_makes_the_least_recently_used_leave() {
    let entries: Vec<_> = (0..10).map(|i| entry(i, i, 100 - i)).collect();
    let free = |available| {
        Some(Free {
            available,
            total: 200_000,
            unit: 4096,
        })
    };
    // 5 % of 200,000 are 10,000; the goal is a tenth more, and each entry holds one unit of 4,096.
    assert_eq!(plan(&entries, now(), &limits(), free(10_000)), []);
    let chosen: Vec<_> = plan(&entries, now(), &limits(), free(5_000))
        .iter()
        .map(|victim| (victim.id, victim.reason, victim.size))
        .collect();
    assert_eq!(
        chosen,
        [(0, Reason::Pressure, 100), (1, Reason::Pressure, 100)]
    );
    let off = Limits {
        keep_free: KeepFree::Bytes(0),
        ..limits()
    };
    assert_eq!(plan(&entries, now(), &off, free(0)), []);
}

#[test]
fn budget_comes_before_pressure() {
    let entries: Vec<_> = (0..11).map(|i| entry(i, i, 100 - i)).collect();
    let tight = Limits {
        max_size: 1000,
        keep_free: KeepFree::Bytes(1000),
        ..limits()
    };
    let free = Some(Free {
        available: 800,
        total: 10_000,
        unit: 1,
    });
    let chosen: Vec<_> = plan(&entries, now(), &tight, free)
        .iter()
        .map(|victim| (victim.id, victim.reason))
        .collect();
    assert_eq!(
        chosen,
        [
            (0, Reason::Budget),
            (1, Reason::Budget),
            (2, Reason::Pressure)
        ]
    );
}

#[test]
fn a_hundred_thousand_entries_are_planned_well_within_a_second() {
    let entries: Vec<_> = (0..100_000)
        .map(|i| {
            let mut info = with_source(entry(i, i % 1000, (i * 7919) % (40 * DAY)), i % 5);
            info = with_abi(info, (i % 3) as u32);
            info
        })
        .collect();
    let tight = Limits {
        max_size: 1_000_000,
        ..limits()
    };
    // Processor time of this thread, as other work on the machine is not the planner's.
    let used = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    };
    let start = used();
    let chosen = plan(&entries, now(), &tight, None);
    assert!(chosen.len() > 90_000);
    let took = used() - start;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn every_reason_has_one_name() {
    for reason in Reason::ALL {
        let json = serde_json::to_string(&reason).unwrap();
        assert_eq!(json, format!("\"{reason}\""));
        assert_eq!(serde_json::from_str::<Reason>(&json).unwrap(), reason);
    }
    assert!(Reason::ALL.is_sorted());
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        6 => (0..6u64, 0..4u64, 0..3u32).prop_map(|(group, source, abi)| Kind::Entry {
            group,
            source,
            abi
        }),
        2 => Just(Kind::Other),
        1 => Just(Kind::Staged),
    ]
}

/// Files with coarse times, so that ties and neighbours of every limit are common.
fn any_entries() -> impl Strategy<Value = Vec<EntryInfo>> {
    let one = (
        any_kind(),
        0..100u64,
        0..110u64,
        0..500u64,
        proptest::bool::weighted(0.15),
    );
    proptest::collection::vec(one, 0..60).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(|(id, (kind, committed, used, size, in_use))| EntryInfo {
                id: id as u64,
                kind,
                committed_at: at(committed * DAY),
                last_used: at(used * DAY),
                size,
                in_use,
            })
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
        any_age(),
        any_age(),
        any_age(),
        any_age(),
        0..20_000u64,
    )
        .prop_map(
            |(max_size, max_entries, max_age, superseded_grace, foreign_age, stale_temp, keep)| {
                Limits {
                    max_size,
                    max_entries,
                    max_age,
                    superseded_grace,
                    foreign_age,
                    stale_temp,
                    keep_free: KeepFree::Bytes(keep),
                }
            },
        )
}

fn any_free() -> impl Strategy<Value = Option<Free>> {
    proptest::option::of(
        (0..30_000u64, 1..600u64).prop_map(|(available, unit)| Free {
            available,
            total: 100_000,
            unit,
        }),
    )
}

/// The table of rules, said again in the plainest way: whether `reason` may choose `entry` among
/// `all`.
fn deserves(entry: &EntryInfo, reason: Reason, all: &[EntryInfo], limits: &Limits) -> bool {
    let idle =
        |since: SystemTime, age: Option<Duration>| age.is_some_and(|age| since + age <= now());
    let used = entry.last_used.max(entry.committed_at);
    match (reason, entry.kind) {
        (Reason::StaleTemp, kind) => kind == Kind::Staged && idle(used, limits.stale_temp),
        (_, Kind::Staged) => false,
        (Reason::Expired, _) => idle(used, limits.max_age),
        (Reason::Superseded, Kind::Entry { group, source, .. }) => all.iter().any(|newer| {
            matches!(newer.kind, Kind::Entry { group: g, source: s, .. } if g == group && s != source)
                && newer.committed_at > entry.committed_at
                && idle(used.max(newer.committed_at), limits.superseded_grace)
        }),
        (Reason::Foreign, Kind::Entry { abi, .. }) => {
            let of = |this: bool| {
                all.iter().filter(move |other| {
                    matches!(other.kind, Kind::Entry { abi: a, .. } if (a == abi) == this)
                })
            };
            let idle = |other: &EntryInfo| {
                idle(other.last_used.max(other.committed_at), limits.foreign_age)
            };
            limits.foreign_age.is_some() && of(true).all(idle) && !of(false).all(idle)
        }
        (Reason::Superseded | Reason::Foreign, Kind::Other) => false,
        (Reason::Budget | Reason::Pressure, _) => true,
        (Reason::Corrupt, _) => false,
    }
}

proptest! {
    #[test]
    fn every_victim_deserves_its_reason_and_every_survivor_none_by_age(
        entries in any_entries(), limits in any_limits(), free in any_free(),
    ) {
        let chosen = plan(&entries, now(), &limits, free);
        let by_id: HashMap<u64, &EntryInfo> = entries.iter().map(|e| (e.id, e)).collect();
        for victim in &chosen {
            let info = by_id[&victim.id];
            prop_assert!(deserves(info, victim.reason, &entries, &limits), "{victim:?} {info:?}");
            let first = Reason::ALL
                .into_iter()
                .find(|reason| deserves(info, *reason, &entries, &limits));
            if victim.reason < Reason::Budget {
                prop_assert_eq!(first, Some(victim.reason));
            }
        }
        let gone: HashSet<u64> = chosen.iter().map(|victim| victim.id).collect();
        prop_assert_eq!(gone.len(), chosen.len(), "a victim is chosen once");
        for info in entries.iter().filter(|e| !e.in_use && !gone.contains(&e.id)) {
            for reason in [Reason::StaleTemp, Reason::Expired, Reason::Superseded, Reason::Foreign] {
                prop_assert!(!deserves(info, reason, &entries, &limits), "{info:?} stays in spite of {reason}");
            }
        }
    }

    #[test]
    fn nothing_in_use_leaves(
        entries in any_entries(), limits in any_limits(), free in any_free(),
    ) {
        let in_use: HashSet<u64> = entries.iter().filter(|e| e.in_use).map(|e| e.id).collect();
        for victim in plan(&entries, now(), &limits, free) {
            prop_assert!(!in_use.contains(&victim.id));
        }
    }

    #[test]
    fn what_stays_is_within_the_budget_unless_it_is_in_use(
        entries in any_entries(), limits in any_limits(), free in any_free(),
    ) {
        let gone: HashSet<u64> =
            plan(&entries, now(), &limits, free).iter().map(|victim| victim.id).collect();
        let stays: Vec<_> = entries
            .iter()
            .filter(|e| e.kind != Kind::Staged && !gone.contains(&e.id))
            .collect();
        let bytes: u64 = stays.iter().map(|e| e.size).sum();
        let within = bytes <= limits.max_size && stays.len() as u64 <= limits.max_entries;
        prop_assert!(within || stays.iter().all(|e| e.in_use));
    }

    #[test]
    fn pressure_is_relieved_or_nothing_is_left_to_remove(
        entries in any_entries(), limits in any_limits(), free in any_free(),
    ) {
        let Some(space) = free else { return Ok(()) };
        let chosen = plan(&entries, now(), &limits, free);
        let gone: HashSet<u64> = chosen.iter().map(|victim| victim.id).collect();
        let committed = entries.iter().filter(|e| e.kind != Kind::Staged);
        let freed: u64 = committed
            .clone()
            .filter(|e| gone.contains(&e.id))
            .map(|e| e.size.next_multiple_of(space.unit))
            .sum();
        let enough = space.available + freed >= limits.keep_free.bytes_of(space.total);
        prop_assert!(enough || committed.filter(|e| !gone.contains(&e.id)).all(|e| e.in_use));
    }

    #[test]
    fn the_least_recently_used_leave_first(
        entries in any_entries(), limits in any_limits(), free in any_free(),
    ) {
        let chosen = plan(&entries, now(), &limits, free);
        let gone: HashMap<u64, Reason> =
            chosen.iter().map(|victim| (victim.id, victim.reason)).collect();
        let used = |e: &EntryInfo| e.last_used.max(e.committed_at);
        let latest = entries
            .iter()
            .filter(|e| matches!(gone.get(&e.id), Some(Reason::Budget | Reason::Pressure)))
            .map(used)
            .max();
        let earliest = entries
            .iter()
            .filter(|e| e.kind != Kind::Staged && !e.in_use && !gone.contains_key(&e.id))
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
            plan(&entries, now(), &limits, None).iter().map(|victim| victim.id).collect();
        let stays: Vec<_> =
            entries.into_iter().filter(|e| !gone.contains(&e.id)).collect();
        prop_assert_eq!(plan(&stays, now(), &limits, None), []);
    }
}
