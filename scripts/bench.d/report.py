"""docs/PERFORMANCE.md: the tables between its markers. All other text there is written by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import summary
from summary import Spread
from systems import ALL, KIDAFS, PLAIN
from targets import TARGETS, TIMES

CRASH = KIDAFS[0]

# workload, series, what the reader sees; in the order of the report and of the chart
LATENCIES = (
    ("kida", "hit repeated", "kida: hit, repeated"),
    ("kida", "hit second", "kida: second hit after a store"),
    ("kida", "hit first", "kida: first hit after a store"),
    ("kida", "miss repeated", "kida: miss, repeated"),
    ("kida", "miss first", "kida: miss, first"),
    ("kida", "store", "kida: store"),
    ("start-up", "process", "kida: process that renders 200 templates"),
    ("dropped", "hit", "kida: hit after the page cache was dropped"),
    ("jinja2", "hit repeated", "Jinja2: hit, repeated"),
    ("jinja2", "hit first", "Jinja2: first hit after a store"),
    ("jinja2", "miss first", "Jinja2: miss, first"),
    ("jinja2", "store", "Jinja2: store"),
    ("native", "hit", "native: open, read, close"),
    ("native", "store", "native: create, write, rename"),
    ("listing", "ls -l first", "`ls -l` of 10,000 entries, first"),
    ("listing", "ls -l repeated", "`ls -l` of 10,000 entries, repeated"),
    ("listing", "glob first", "glob of 10,000 entries, first"),
    ("listing", "glob repeated", "glob of 10,000 entries, repeated"),
)


def number(value: float) -> str:
    """Three significant digits, with separators, never an exponent."""
    if value == 0:
        return "0"
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def with_quartiles(measured: Spread, unit: str = "") -> str:
    if measured.samples == 1:
        return f"{number(measured.median)}{unit}"
    return f"{number(measured.median)}{unit} ({number(measured.low)}–{number(measured.high)})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column is text, all others are numbers."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def targets(results: dict) -> str:
    """Every target and what was measured, met or not."""

    def row(target):
        measured = target.measured(results)
        sign = "≥" if target.least else "≤"
        reach = f"{sign} {target.reach:g}{target.unit}"
        if target.messages:
            reach += ", 0 messages"
        stretch = "" if target.stretch is None else f"{target.stretch:g}{target.unit}"
        if measured is None:
            return [target.name, reach, stretch, "not measured", ""]
        shown = with_quartiles(measured, target.unit)
        if target.messages and "messages" in results:
            shown += f", {target.messages_taken(results):g} messages in 1,000"
        return [target.name, reach, stretch, shown, "met" if target.met(results) else "**not met**"]

    return table(["operation", "target", "stretch", "measured (quartiles)", ""], map(row, TARGETS))


def ratios(results: dict) -> str:
    """Every latency on every system, relative to ext4."""
    rows = []
    for workload, series, name in LATENCIES:
        found = results.get(workload, {}).get(series, {})
        if PLAIN not in found:
            continue
        base = found[PLAIN]
        rows.append(
            [name, f"{number(summary.spread(base).median)} µs"]
            + [number(summary.ratio(found[system], base).median) if system in found else "" for system in ALL[1:]]
        )
    return table(["operation", "ext4", *(f"{system} {TIMES}" for system in ALL[1:])], rows)


def throughput(results: dict) -> str:
    """Hits and stores a second by threads, or processes."""
    rows = []
    for workload, client in (("native", "native"), ("processes", "kida")):
        measured = results.get(workload, {})
        for series in sorted(name for name in measured if "a second" in name):
            found = measured[series]
            rows.append(
                [f"{client}: {series}"]
                + [number(summary.spread(found[system]).median) if system in found else "" for system in ALL]
            )
    return table(["calls a second", *ALL], rows)


def flushed(results: dict) -> str:
    """What --durability power is to be compared with."""
    native = results.get("native", {})
    if "store, flushed" not in native:
        return "not measured"
    plain = native["store, flushed"][PLAIN]
    power = summary.ratio(native["store"][KIDAFS[1]], plain)
    return (
        f"The native client's store on ext4 with the file flushed before the rename and the directory after it: "
        f"{number(summary.spread(plain).median)} µs; kidafs with `--durability power`, which promises the same: "
        f"{with_quartiles(power, TIMES)} of that."
    )


def messages(results: dict) -> str:
    """What each operation asks of the daemon."""
    found = results.get("messages")
    if not found:
        return "not measured"

    def words(counts: dict[str, float]) -> str:
        return ", ".join(f"{value:g} {name}" for name, value in counts.items()) or "none"

    rows = [[name, f"{sum(counts.values()):g}", words(counts)] for name, counts in found["calls"].items()]
    text = table(["call of kida's cache", "messages a call", "which"], rows)
    listing = found["listing"]
    for name in ("ls -l first", "ls -l repeated"):
        text += f"\n\n`ls -l` of {listing['entries']} entries, {name.split()[-1]}: {words(listing[name])}."
    seen = found["strace"]
    if seen:
        text += f"\n\nChecked once with strace: the daemon counted {seen['counted']} messages in a round "
        text += f"in which it read {seen['seen']} from `/dev/fuse`."
    return text


def scale(results: dict) -> str:
    """How cost grows with the number of entries."""
    found = results.get("scale", {})
    rows = []
    for count, series in sorted(found.items(), key=lambda item: int(item[0])):

        def median(name: str, system: str = CRASH, series=series) -> float:
            return summary.spread(series[name][system]).median

        def against(name: str, series=series) -> str:
            return with_quartiles(summary.ratio(series[name][CRASH], series[name][PLAIN]), TIMES)

        rows.append(
            [
                f"{int(count):,}",
                f"{number(median('mount') / 1000)} ms",
                f"{number(median('resident bytes after mount') / (1 << 20))} MiB",
                f"{number(median('resident bytes') / (1 << 20))} MiB",
                *(against(name) for name in ("hit first", "hit repeated", "miss first", "store")),
                f"{number(median('sweep') / 1000)} ms",
            ]
        )
    head = ["entries", "mount", "memory after mount", "memory after use", "first hit", "hit", "first miss", "store"]
    return table([*head, "sweep"], rows)


def idle(results: dict) -> str:
    found = results.get("idle")
    if not found:
        return "not measured"
    rows = [
        [system, f"{found['cpu_seconds'][system]:.2f} s", f"{seconds:.4f} s"]
        for system, seconds in found["thread_seconds"].items()
    ]
    return table([f"idle for {found['seconds']} s", "process (ticks of 10 ms)", "sum of threads"], rows)


def policy(results: dict) -> str:
    """Hit rates by trace and budget."""
    found = results.get("policy")
    if not found:
        return "not measured"
    traces = found["hit_rates"]
    names = list(next(iter(next(iter(traces.values())).values())))
    rows = []
    for trace, budgets in traces.items():
        for percent, rates in sorted(budgets.items(), key=lambda item: int(item[0])):
            best = max(rates.values())
            shown = [f"**{rates[name]:.1%}**" if rates[name] == best else f"{rates[name]:.1%}" for name in names]
            rows.append([trace, f"{percent} %", *shown])
    return table(["trace", "budget", *names], rows)


def run(results: dict, run: dict) -> str:
    """On what all this was measured."""
    machine, versions = run["machine"], run["versions"]
    kind = "A quick run" if run["quick"] else "A full run"
    return (
        f"{kind} of {round(run['seconds'] / 60)} min on {run['date']}: {machine['cpus']} × {machine['processor']}, "
        f"{machine['memory_gib']} GiB, Linux {machine['kernel']}, "
        f"{'root' if machine['root'] else 'an ordinary user'}; ext4 {machine['ext4']}. "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )


BLOCKS = {
    "targets": targets,
    "ratios": ratios,
    "throughput": throughput,
    "flushed": flushed,
    "messages": messages,
    "scale": scale,
    "idle": idle,
    "policy": policy,
}


def blocks(document: dict) -> dict[str, str]:
    """The generated parts by the names of their markers."""
    results = document["results"]
    made = {name: make(results) for name, make in BLOCKS.items()}
    made["run"] = run(results, document["run"])
    return made


def fill(text: str, made: dict[str, str]) -> str:
    """`text` with what is between each pair of markers replaced."""
    for name, block in made.items():
        begin, end = f"<!-- {name}: scripts/bench writes this -->", f"<!-- end of {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.S)
        text, count = pattern.subn(lambda _: f"{begin}\n\n{block}\n\n{end}", text)
        if count != 1:
            raise ValueError(f"the page has {count} pairs of markers for {name}, and needs one")
    return text


def as_text(document: dict) -> str:
    """For the terminal: the same tables."""
    made = blocks(document)
    return "\n\n".join(made[name] for name in ("run", *BLOCKS))
