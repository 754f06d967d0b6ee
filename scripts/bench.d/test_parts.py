"""The benchmark's own arithmetic: what it shows is what was measured. tests/docs/performance.rs runs these."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import chart
import harness
import report
import summary
from systems import ALL, KIDAFS, PLAIN, Mount
from targets import TARGETS

import daemon


class Summary(unittest.TestCase):
    def test_a_ratio_is_that_of_the_medians(self):
        spread = summary.ratio([2, 4, 100], [1, 2, 4])
        self.assertEqual(spread.median, 2)
        self.assertEqual(spread.samples, 3)

    def test_quartiles_are_of_ratios_within_a_repetition(self):
        """The machine was ten times slower for a while: no ratio changes."""
        spread = summary.ratio([2, 20, 2, 20], [1, 10, 1, 10])
        self.assertEqual((spread.low, spread.high), (2, 2))

    def test_one_sample_is_its_own_median(self):
        self.assertEqual(summary.spread([3]), summary.Spread(3, 3, 3, 1))


class Interleaving(unittest.TestCase):
    def test_every_mount_has_its_turn_and_the_first_repetition_does_not_count(self):
        bench = harness.Harness(*[None] * 4, quick=True, share=0, entry=None, small_entry=None)
        mounts = [Mount(name, Path("/")) for name in "abc"]
        turns = []

        def measure(mount, repetition):
            turns.append((repetition, mount.system))
            return {"number": repetition}

        series = bench.interleave(mounts, 1, measure)
        self.assertEqual(series, {"number": {name: [1] for name in series["number"]}})
        self.assertEqual(sorted(turns), [(n, name) for n in (0, 1) for name in "abc"])


class Strace(unittest.TestCase):
    def test_only_reads_that_return_something_are_messages(self):
        lines = """\
12 read(7, "\\1", 1052672) = 64
12 read(7, 0x7f, 1052672) = -1 EAGAIN (Resource temporarily unavailable)
13 read(7, <unfinished ...>
12 read(7, "x", 1052672) = 128
13 <... read resumed>"\\3", 1052672) = 80
13 read(7, 0x7f, 1052672) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)
"""
        with tempfile.NamedTemporaryFile("w") as log:
            log.write(lines)
            log.flush()
            self.assertEqual(daemon.messages_in(Path(log.name)), 3)


def results(kidafs: float) -> dict:
    """Every series of a run in which kidafs takes `kidafs` times as long as ext4."""
    times = {system: [10.0] for system in ALL} | {system: [10.0 * kidafs] for system in KIDAFS}
    found = {}
    for workload, series, _ in report.LATENCIES:
        found.setdefault(workload, {})[series] = times
    return found


class Pages(unittest.TestCase):
    def test_a_target_is_met_at_its_limit_and_not_beyond(self):
        repeated = TARGETS[0]
        self.assertTrue(repeated.met(results(1.05)))
        self.assertFalse(repeated.met(results(1.06)))
        self.assertIsNone(repeated.met({}))

    def test_a_message_where_none_is_allowed_misses_the_target(self):
        taken = {"messages": {"calls": {"hit repeated": {"lookup": 0.001}}}}
        self.assertFalse(TARGETS[0].met(results(1.0) | taken))

    def test_what_was_not_measured_says_so(self):
        self.assertEqual(report.targets({}).count("not measured"), len(TARGETS))

    def test_blocks_replace_only_what_is_between_their_markers(self):
        begin, end = "<!-- idle: scripts/bench writes this -->", "<!-- end of idle -->"
        text = f"before\n{begin}\nold\n{end}\nafter"
        self.assertEqual(report.fill(text, {"idle": "new"}), f"before\n{begin}\n\nnew\n\n{end}\nafter")

    def test_a_page_without_a_marker_is_refused(self):
        with self.assertRaises(ValueError):
            report.fill("", {"idle": "new"})

    def test_every_ratio_of_the_chart_is_written_in_it(self):
        known = {name[:2] for name in report.LATENCIES}
        groups = [group for group in chart.GROUPS if group[:2] in known]
        drawn = chart.draw(results(2.5))
        self.assertEqual(drawn.count(">2.50<"), len(groups) * len(KIDAFS))

    def test_twice_the_calls_a_second_is_half_the_cost(self):
        native = {"native": {"hits a second, 4 threads": {PLAIN: [10.0], KIDAFS[0]: [20.0]}}}
        group = next(group for group in chart.GROUPS if group[1] == "hits a second, 4 threads")
        self.assertEqual(chart.cost(native, group, KIDAFS[0]), 0.5)


if __name__ == "__main__":
    unittest.main()
