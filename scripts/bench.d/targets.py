"""The targets, and whether they were met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import summary
from summary import Spread
from systems import KIDAFS, PLAIN

CRASH, POWER, ASYNC = KIDAFS
TIMES = "×"


@dataclass(frozen=True)
class Target:
    """A row of the table. `measured` finds the number in a run's results; None if it was not measured."""

    name: str
    reach: float
    stretch: float | None
    measured: Callable[[dict], Spread | None]
    unit: str = TIMES
    least: bool = False  # to be at least `reach`, not at most
    messages: str | None = None  # the calls that must take no message at all

    def met(self, results: dict) -> bool | None:
        """None: not measured."""
        measured = self.measured(results)
        if measured is None:
            return None
        # As it is printed: 1.049 is no 1.05 that was missed.
        shown = round(measured.median, 2)
        reached = shown >= self.reach if self.least else shown <= self.reach
        return reached and not self.messages_taken(results)

    def messages_taken(self, results: dict) -> float:
        """Messages in 1,000 calls, where there are to be none."""
        calls = results.get("messages", {}).get("calls", {})
        return round(1000 * sum(calls.get(self.messages, {}).values())) if self.messages else 0


def of(workload: str, series: str, system: str, base: str = PLAIN) -> Callable[[dict], Spread | None]:
    """The ratio of one system to another in a series."""

    def measured(results: dict) -> Spread | None:
        found = results.get(workload, {}).get(series, {})
        if system not in found or base not in found:
            return None
        return summary.ratio(found[system], found[base])

    return measured


def idle(results: dict) -> Spread | None:
    """Of the daemon that used most."""
    if "idle" not in results:
        return None
    # The sum over threads is exact; the process's own count has ticks of 10 ms and knows ended threads.
    found = results["idle"]
    most = max(*found["cpu_seconds"].values(), *found["thread_seconds"].values())
    return summary.spread([most * 60 / found["seconds"]])


TARGETS = (
    Target("hit, repeated", 1.05, 1.0, of("kida", "hit repeated", CRASH), messages="hit repeated"),
    Target("second hit after a store", 1.05, 1.0, of("kida", "hit second", CRASH)),
    Target("first hit after a store", 1.3, 1.1, of("kida", "hit first", CRASH)),
    Target("first hit after a mount with `--warm`", 1.1, 1.0, of("warm", "hit", "kidafs --warm")),
    Target("miss, repeated", 1.1, 1.0, of("kida", "miss repeated", CRASH), messages="miss repeated"),
    Target("miss, first", 2.3, 1.5, of("kida", "miss first", CRASH)),
    Target("store, entry on disk when rename returns", 2.0, 1.0, of("kida", "store", CRASH)),
    Target("store, `--durability async`", 1.7, 1.0, of("kida", "store", ASYNC)),
    Target("kida process loading 200 templates from the cache", 1.02, 1.0, of("start-up", "process", CRASH)),
    Target("hit after the page cache was dropped", 0.8, 0.5, of("dropped", "hit", CRASH)),
    Target("`ls -l` of 10,000 entries, repeated", 1.3, 1.0, of("listing", "ls -l repeated", CRASH)),
    Target(
        "native client's hits of 4 threads on 2 processors, total throughput",
        0.95,
        1.0,
        of("native", "hits a second, 4 threads", CRASH),
        least=True,
    ),
    Target("native client's hit, faster than on bindfs by", 6, None, of("native", "hit", "bindfs", CRASH), least=True),
    Target("native client's hit, faster than on rclone by", 20, None, of("native", "hit", "rclone", CRASH), least=True),
    Target("processor time of an idle daemon over 60 s", 0.05, 0.0, idle, unit=" s"),
)
