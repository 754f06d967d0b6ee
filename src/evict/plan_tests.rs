//! The rules one by one.

use std::time::{Duration, SystemTime};

use super::*;

const HOUR: u64 = 3600;
pub(super) const DAY: u64 = 24 * HOUR;

/// The present of these tests: 100 days after the epoch.
pub(super) fn now() -> SystemTime {
    at(100 * DAY)
}

pub(super) fn at(seconds: u64) -> SystemTime {
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
        verdict: Verdict::Unknown,
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
        .victims
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
    assert_eq!(
        victims(&[old, live], &limits()),
        [(1, Reason::ForeignVersion)]
    );
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
        orphaned_grace: None,
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
            ..Free::default()
        })
    };
    let limits = || Limits {
        keep_free: KeepFree::Percent(5.0),
        ..limits()
    };
    // 5 % of 200,000 are 10,000; the goal is a tenth more, and each entry holds one unit of 4,096.
    assert_eq!(
        plan(&entries, now(), &limits(), free(10_000)),
        Plan::default()
    );
    let chosen: Vec<_> = plan(&entries, now(), &limits(), free(5_000))
        .victims
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
    assert_eq!(plan(&entries, now(), &off, free(0)), Plan::default());
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
        ..Free::default()
    });
    let chosen: Vec<_> = plan(&entries, now(), &tight, free)
        .victims
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
    let chosen = plan(&entries, now(), &tight, None).victims;
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

fn with_verdict(entry: EntryInfo, verdict: Verdict) -> EntryInfo {
    EntryInfo { verdict, ..entry }
}

fn of_kind(entry: EntryInfo, kind: Kind) -> EntryInfo {
    EntryInfo { kind, ..entry }
}

#[test]
fn what_is_no_entry_never_leaves_and_takes_space() {
    let foreign = |id| of_kind(entry(id, 0, 90 * DAY), Kind::Foreign);
    let entries = [foreign(1), foreign(2), entry(3, 3, 50)];
    let tight = |max_size| Limits {
        max_size,
        ..limits()
    };
    assert_eq!(victims(&entries, &tight(250)), [(3, Reason::Budget)]);
    assert_eq!(victims(&entries, &tight(300)), []);
}

#[test]
fn nothing_is_evicted_for_a_budget_that_evicting_cannot_reach() {
    let foreign = |id| of_kind(entry(id, 0, DAY), Kind::Foreign);
    let entries = [foreign(1), foreign(2), entry(3, 3, 50)];
    let plan = plan(
        &entries,
        now(),
        &Limits {
            max_size: 199,
            ..limits()
        },
        None,
    );
    assert_eq!(plan.victims, []);
    assert!(plan.budget_out_of_reach);
}

#[test]
fn a_limit_that_is_reached_only_just_is_the_goal_itself() {
    let mut entries = vec![of_kind(
        EntryInfo {
            size: 950,
            ..entry(0, 0, DAY)
        },
        Kind::Foreign,
    )];
    entries.extend((1..5).map(|i| EntryInfo {
        size: 20,
        ..entry(i, i, 100 - i)
    }));
    let tight = Limits {
        max_size: 1000,
        ..limits()
    };
    assert_eq!(
        victims(&entries, &tight),
        [(1, Reason::Budget), (2, Reason::Budget)]
    );
}

#[test]
fn nothing_is_evicted_for_free_space_that_evicting_cannot_make() {
    let entries: Vec<_> = (0..10).map(|i| entry(i, i, 100 - i)).collect();
    let keep = |bytes| Limits {
        keep_free: KeepFree::Bytes(bytes),
        ..limits()
    };
    let free = Some(Free {
        available: 500,
        total: 1 << 30,
        unit: 1,
        ..Free::default()
    });
    let beyond = plan(&entries, now(), &keep(1501), free);
    assert_eq!(beyond.victims, []);
    assert!(beyond.pressure_out_of_reach);
    let just = plan(&entries, now(), &keep(1500), free);
    assert_eq!(just.victims.len(), 10);
    assert!(!just.pressure_out_of_reach);
}

#[test]
fn inodes_are_space_too() {
    let entries: Vec<_> = (0..10).map(|i| entry(i, i, 100 - i)).collect();
    let free = |inodes| {
        Some(Free {
            available: 1 << 30,
            total: 1 << 30,
            unit: 4096,
            inodes,
            total_inodes: 100,
        })
    };
    assert_eq!(plan(&entries, now(), &limits(), free(5)).victims, []);
    let plan = plan(&entries, now(), &limits(), free(2));
    assert_eq!(plan.victims.len(), 3);
    assert!(plan.victims.iter().all(|v| v.reason == Reason::Pressure));
}

#[test]
fn a_temporary_file_on_disk_leaves_for_its_age_only_and_takes_space_until_then() {
    let left = |age| of_kind(entry(1, 0, age), Kind::LeftOver);
    assert_eq!(victims(&[left(HOUR)], &limits()), [(1, Reason::StaleTemp)]);
    let tight = Limits {
        max_entries: 1,
        ..limits()
    };
    let entries = [left(HOUR - 1), entry(2, 2, 50)];
    assert_eq!(victims(&entries, &tight), [(2, Reason::Budget)]);
}

#[test]
fn a_module_of_mako_leaves_only_when_its_source_has_shown_it_to_be_stale() {
    let module = |verdict| with_verdict(of_kind(entry(1, 0, 90 * DAY), Kind::Module), verdict);
    let since = ago(2 * DAY);
    let tight = Limits {
        max_entries: 0,
        ..limits()
    };
    assert_eq!(victims(&[module(Verdict::Unknown)], &tight), []);
    assert_eq!(victims(&[module(Verdict::Fresh)], &tight), []);
    assert_eq!(
        victims(&[module(Verdict::Superseded { since })], &tight),
        [(1, Reason::Superseded)]
    );
    assert_eq!(
        victims(&[module(Verdict::Orphaned { since })], &tight),
        [(1, Reason::Orphaned)]
    );
}

#[test]
fn what_a_source_has_outdated_leaves_after_its_grace_unless_it_is_used() {
    let superseded = |id, used, since| {
        with_verdict(
            entry(id, id, used),
            Verdict::Superseded { since: ago(since) },
        )
    };
    let orphaned = |id, used, since| {
        with_verdict(entry(id, id, used), Verdict::Orphaned { since: ago(since) })
    };
    let entries = [
        superseded(1, 400, 300),
        superseded(2, 400, 299),
        superseded(3, 299, 400),
        orphaned(4, 2 * DAY, DAY),
        orphaned(5, 2 * DAY, DAY - 1),
        orphaned(6, DAY - 1, 2 * DAY),
    ];
    assert_eq!(
        victims(&entries, &limits()),
        [(1, Reason::Superseded), (4, Reason::Orphaned)]
    );
}

#[test]
fn what_is_fresh_neither_expires_nor_is_superseded_by_name_and_goes_last() {
    let fresh = |id, age| with_verdict(entry(id, 1, age), Verdict::Fresh);
    let newer = with_source(entry(2, 1, 2 * HOUR), 2);
    assert_eq!(victims(&[fresh(1, 90 * DAY), newer], &limits()), []);
    let stale = with_verdict(entry(3, 3, 10), Verdict::Superseded { since: ago(10) });
    let entries = [fresh(1, 3000), entry(2, 2, 1000), stale];
    for (max_entries, gone) in [(2, vec![3]), (1, vec![3, 2]), (0, vec![3, 2, 1])] {
        let tight = Limits {
            max_entries,
            ..limits()
        };
        let ids: Vec<_> = victims(&entries, &tight).iter().map(|v| v.0).collect();
        assert_eq!(ids, gone);
    }
}

#[test]
fn what_is_larger_than_the_budget_goes_before_what_fits() {
    let large = EntryInfo {
        size: 5000,
        ..entry(2, 2, 1)
    };
    let tight = Limits {
        max_size: 1000,
        ..limits()
    };
    assert_eq!(
        victims(&[entry(1, 1, DAY), large], &tight),
        [(2, Reason::Budget)]
    );
}
