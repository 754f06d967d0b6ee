"""Numbers out of samples: medians, quartiles, ratios."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The median and the quartiles of samples."""

    median: float
    low: float
    high: float
    samples: int


def spread(samples: Sequence[float]) -> Spread:
    """Of at least one sample."""
    if len(samples) == 1:
        return Spread(samples[0], samples[0], samples[0], 1)
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Spread(median, low, high, len(samples))


def ratio(samples: Sequence[float], base: Sequence[float]) -> Spread:
    """The ratio of the medians. The quartiles are those of the ratios within each repetition, in which both
    were measured within a moment of each other: what slows the machine down for a while slows down both."""
    pairs = spread([a / b for a, b in zip(samples, base, strict=True) if b > 0])
    return Spread(statistics.median(samples) / statistics.median(base), pairs.low, pairs.high, pairs.samples)
