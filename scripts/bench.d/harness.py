"""How everything is measured: round-robin, in short rounds, for a bounded time."""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from systems import Mount, Systems
from workers import Worker

# series -> system -> one number a repetition; times are in microseconds, unless the series says otherwise
Series = dict[str, dict[str, list[float]]]


@dataclass
class Harness:
    """What a workload works with."""

    systems: Systems
    engine: Worker
    client: Worker
    python: Path
    quick: bool
    share: float  # of a full run's time
    entry: Path  # what an entry of the usual size holds
    small_entry: Path  # and one of hardly any code
    random: random.Random = field(default_factory=lambda: random.Random(314))

    def interleave(
        self,
        mounts: list[Mount],
        seconds: float,
        measure: Callable[[Mount, int], dict[str, float]],
        *,
        least: int = 5,
        before: Callable[[int], None] | None = None,
    ) -> Series:
        """Lets every mount have its turn in each repetition, in another order each time, until the time is up;
        at least `least` times, and at most for twice the time. The first repetition warms up and does not count."""
        series: Series = defaultdict(lambda: defaultdict(list))
        end = time.monotonic() + seconds * self.share
        last = end + seconds * self.share
        repetition = 0
        last_mount = None
        while repetition <= 1 or time.monotonic() < (end if repetition > least else last):
            order = self.random.sample(mounts, len(mounts))
            if before:
                before(repetition)
            measured = {}
            for mount in order:
                # Nor may what is left of the turn before be a help or a burden to this one.
                if last_mount:
                    last_mount.settle()
                mount.settle()
                last_mount = mount
                measured[mount.system] = measure(mount, repetition)
            if repetition > 0:
                for mount in mounts:
                    for name, number in measured[mount.system].items():
                        series[name][mount.system].append(number)
            repetition += 1
        return {name: dict(systems) for name, systems in series.items()}


def microseconds(nanoseconds: list[int]) -> float:
    """The median call of a round."""
    return statistics.median(nanoseconds) / 1000
