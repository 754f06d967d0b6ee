"""How everything is measured: round-robin, in short rounds, for a bounded time."""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from partners import Partner
from systems import Place, Systems

# series -> system -> one number a repetition; times are in microseconds, unless the series says otherwise
Series = dict[str, dict[str, list[float]]]


@dataclass
class Lab:
    """What a workload works with."""

    systems: Systems
    engine: Partner
    client: Partner
    python: Path
    quick: bool
    share: float  # of a full run's time
    entry: Path  # what an entry of the usual size holds
    small_entry: Path  # and one of hardly any code
    random: random.Random = field(default_factory=lambda: random.Random(314))

    def interleave(
        self,
        places: list[Place],
        seconds: float,
        measure: Callable[[Place, int], dict[str, float]],
        *,
        least: int = 5,
        before: Callable[[int], None] | None = None,
    ) -> Series:
        """Lets every place have its turn in each repetition, in another order each time, until the time is up;
        at least `least` times, and at most for twice the time. The first repetition warms up and does not count."""
        series: Series = defaultdict(lambda: defaultdict(list))
        end = time.monotonic() + seconds * self.share
        last = end + seconds * self.share
        repetition = 0
        last_place = None
        while repetition <= 1 or time.monotonic() < (end if repetition > least else last):
            order = self.random.sample(places, len(places))
            if before:
                before(repetition)
            measured = {}
            for place in order:
                # Nor may what is left of the turn before be a help or a burden to this one.
                if last_place:
                    last_place.settle()
                place.settle()
                last_place = place
                measured[place.system] = measure(place, repetition)
            if repetition > 0:
                for place in places:
                    for name, number in measured[place.system].items():
                        series[name][place.system].append(number)
            repetition += 1
        return {name: dict(systems) for name, systems in series.items()}


def microseconds(nanoseconds: list[int]) -> float:
    """The median call of a round."""
    return statistics.median(nanoseconds) / 1000
