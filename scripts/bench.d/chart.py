"""docs/performance.svg: every system's time as a multiple of plain ext4's, on a logarithmic scale."""

from __future__ import annotations

import math
from html import escape

import summary
from systems import KIDAFS, PLAIN

COLOURS = {
    "kidafs crash": "#08519c",
    "kidafs power": "#4292c6",
    "kidafs async": "#9ecae1",
    "tmpfs": "#969696",
    "bindfs": "#fd8d3c",
    "rclone": "#a63603",
}
assert set(KIDAFS) <= set(COLOURS)

# workload, series, label, and whether more is better
GROUPS = (
    ("kida", "hit repeated", "hit, repeated", False),
    ("kida", "hit first", "first hit after a store", False),
    ("kida", "miss repeated", "miss, repeated", False),
    ("kida", "miss first", "miss, first", False),
    ("kida", "store", "store", False),
    ("start-up", "process", "process rendering 200 templates", False),
    ("dropped", "hit", "hit, page cache dropped", False),
    ("listing", "ls -l repeated", "ls -l of 10,000, repeated", False),
    ("native", "hits a second, 4 threads", "native hits of 4 threads", True),
    ("native", "stores a second, 4 threads", "native stores of 4 threads", True),
)

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 960, 250, 60, 104, 46
BAR, GAP = 13, 16  # heights: of a bar, and between two groups
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)


def cost(results: dict, group: tuple, system: str) -> float | None:
    """How many times ext4's time it takes."""
    workload, series, _, more_is_better = group
    found = results.get(workload, {}).get(series, {})
    if system not in found or PLAIN not in found:
        return None
    ratio = summary.ratio(found[system], found[PLAIN]).median
    return 1 / ratio if more_is_better else ratio


def draw(results: dict) -> str:
    """The chart as SVG text."""
    groups = [
        (group[2], [(system, value) for system in COLOURS if (value := cost(results, group, system))])
        for group in GROUPS
    ]
    groups = [(label, bars) for label, bars in groups if bars]
    values = [value for _, bars in groups for _, value in bars] or [1]
    low = min(0.5, min(values) / 1.6)
    high = max(2, max(values) * 1.6)

    def x(value: float) -> float:
        share = math.log(value / low) / math.log(high / low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    parts = []
    y = TOP
    for label, bars in groups:
        height = BAR * len(bars)
        parts.append(text(LEFT - 12, y + height / 2 + 4, label, "end", size=13))
        for system, value in bars:
            begin, end = sorted((x(1), x(value)))
            width = max(end - begin, 1)
            parts.append(
                f'<rect x="{begin:.1f}" y="{y}" width="{width:.1f}" height="{BAR - 2}" fill="{COLOURS[system]}"/>'
            )
            shown = f"{value:.2f}" if value < 10 else f"{value:.0f}"
            if value < 1:
                parts.append(text(begin - 4, y + BAR - 4, shown, "end", size=10))
            else:
                parts.append(text(end + 4, y + BAR - 4, shown, size=10))
            y += BAR
        y += GAP
    bottom = y - GAP + 6

    axis = []
    for tick in TICKS:
        if low <= tick <= high:
            strong = ' stroke="#333"' if tick == 1 else ' stroke="#ddd"'
            axis.append(f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP - 8}" y2="{bottom}"{strong}/>')
            axis.append(text(x(tick), bottom + 16, f"{tick:g}", "middle", size=11))
    axis.append(
        text(
            (LEFT + WIDTH - RIGHT) / 2,
            bottom + 36,
            "times as long as plain ext4 (logarithmic; left of 1 is faster)",
            "middle",
            size=12,
        )
    )

    legend = []
    at = LEFT
    for system, colour in COLOURS.items():
        legend.append(f'<rect x="{at}" y="58" width="12" height="12" fill="{colour}"/>')
        legend.append(text(at + 17, 68, system, size=12))
        at += 30 + 7.2 * len(system)
    height = bottom + BOTTOM
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
            f'width="{WIDTH}" height="{height:.0f}" font-family="sans-serif" fill="#222">',
            "<title>Time of each operation relative to plain ext4</title>",
            f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>',
            text(24, 32, "Time of each operation relative to plain ext4", size=18),
            *legend,
            *axis,
            *parts,
            "</svg>",
            "",
        ]
    )


def text(x: float, y: float, content: str, anchor: str = "start", *, size: int) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{escape(content)}</text>'
