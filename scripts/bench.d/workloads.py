"""What is measured, one function a workload."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import host
import systems
import templates
from harness import Harness, Series, microseconds
from systems import KIDAFS, PEERS, PLAIN, Mount
from workers import Worker

ROUND = 40  # entries in a round
SLOW_ROUND = 10  # in those of the peers, whose calls take so much longer


def round_of(mount: Mount) -> int:
    return SLOW_ROUND if mount.system in PEERS else ROUND


def engine_calls(harness: Harness, engine: str, seconds: float) -> Series:
    """An entry's life in a real engine's own cache class."""

    def measure(mount: Mount, repetition: int) -> dict[str, float]:
        answer = harness.engine.ask(
            "round", engine=engine, dir=mount.dir, tag=repetition, first=0, count=round_of(mount)
        )
        return {name: microseconds(times) for name, times in answer.items()}

    with harness.systems.mounts(systems.ALL) as mounts:
        return harness.interleave(mounts, seconds, measure)


def kida(harness: Harness) -> Series:
    """Kida's BytecodeCache: miss, store, hit."""
    return engine_calls(harness, "kida", 130)


def jinja2(harness: Harness) -> Series:
    """Jinja2's FileSystemBytecodeCache: the same."""
    return engine_calls(harness, "jinja2", 60)


def start_up(harness: Harness) -> Series:
    """A new kida process that loads and renders 200 templates, all of them in the cache."""
    folder = harness.systems.fresh()
    templates.write(folder)
    script = Path(__file__).with_name("startup.py")

    def run(mount: Mount) -> dict[str, float]:
        began = time.perf_counter_ns()
        done = subprocess.run(
            [harness.python, "-B", "-I", script, folder, mount.dir], stdout=subprocess.PIPE, check=True
        )
        whole = time.perf_counter_ns() - began
        hits, misses, inside = (int(number) for number in done.stdout.split())
        return {"process": whole / 1000, "load and render": inside / 1000, "hits": hits, "misses": misses}

    def measure(mount: Mount, repetition: int) -> dict[str, float]:
        numbers = run(mount)
        if repetition > 0 and (numbers["misses"] or numbers["hits"] != templates.COUNT):
            raise host.Failure(f"{numbers['misses']} misses on {mount.system}, where all was stored before")
        return {name: numbers[name] for name in ("process", "load and render")}

    # The repetition that does not count fills the cache.
    with harness.systems.mounts(systems.READ) as mounts:
        return harness.interleave(mounts, 120, measure)


def native(harness: Harness) -> Series:
    """The native client with 1, 2 and 4 threads. Calls a second, over all threads; single calls in microseconds."""
    files = 64

    def measure(mount: Mount, repetition: int) -> dict[str, float]:
        first = 1_000_000 * (repetition + 1)
        ask = {"dir": mount.dir, "content": harness.entry}
        numbers = {}
        if repetition == 0:
            harness.client.ask("each", operation="store", first=0, count=files, **ask)
        hits = [harness.client.ask("each", operation="hit", first=0, count=files, **ask) for _ in range(3)]
        numbers["hit"] = microseconds(hits[-1]["nanoseconds"])
        for threads in (1, 2, 4):
            rush = {"threads": threads, "milliseconds": 50, **ask}
            done = harness.client.ask("rush", operation="hit", first=0, count=files, **rush)
            numbers[f"hits a second, {threads} threads"] = done["operations"] / done["seconds"]
        stores = folder_of(mount)
        ask["dir"] = stores
        done = harness.client.ask("each", operation="store", first=first, count=round_of(mount), **ask)
        numbers["store"] = microseconds(done["nanoseconds"])
        for threads in (1, 2, 4):
            first += 100_000
            rush = {"threads": threads, "milliseconds": 50, **ask}
            done = harness.client.ask("rush", operation="store", first=first, count=0, **rush)
            numbers[f"stores a second, {threads} threads"] = done["operations"] / done["seconds"]
        if mount.system == PLAIN:
            done = harness.client.ask("each", operation="flushed-store", first=0, count=10, **ask)
            numbers["store, flushed"] = microseconds(done["nanoseconds"])
        harness.client.ask("clear", dir=stores)
        return numbers

    def folder_of(mount: Mount) -> Path:
        """Apart from the hits' files, so that it can be emptied."""
        folder = mount.dir / "stores"
        folder.mkdir(exist_ok=True)
        return folder

    with harness.systems.mounts(systems.ALL) as mounts:
        return harness.interleave(mounts, 130, measure)


def processes(harness: Harness) -> Series:
    """Hits of 1, 2 and 4 kida processes at a time. Calls a second, over all of them."""

    def measure(mount: Mount, _: int) -> dict[str, float]:
        numbers = {}
        for count in (1, 2, 4):
            with ThreadPoolExecutor(count) as pool:
                done = list(pool.map(lambda engine: rush(engine, mount), engines[:count]))
            numbers[f"hits a second, {count} processes"] = sum(one["operations"] / one["seconds"] for one in done)
        return numbers

    def rush(engine: Worker, mount: Mount) -> dict:
        return engine.ask("rush", dir=mount.dir, milliseconds=50, **stored)

    stored = {"tag": "rush", "first": 0, "count": ROUND}
    with contextlib.ExitStack() as stack:
        engines = [stack.enter_context(Worker(*harness.engine.process.args)) for _ in range(4)]
        mounts = stack.enter_context(harness.systems.mounts(systems.READ))
        for mount in mounts:
            harness.engine.ask("store", dir=mount.dir, **stored)
            for engine in engines:
                rush(engine, mount)
        return harness.interleave(mounts, 30, measure)


def listing(harness: Harness) -> Series:
    """(e) `ls -l` and the engine's own glob of 10,000 entries, after names were dropped and again."""
    count = 10_000

    def ls(mount: Mount) -> float:
        began = time.perf_counter_ns()
        subprocess.run(
            ["ls", "-l", mount.dir], stdout=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"}, check=True
        )
        return (time.perf_counter_ns() - began) / 1000

    def glob(mount: Mount) -> float:
        answer = harness.engine.ask("glob", dir=mount.dir)
        if answer["found"] != count:
            raise host.Failure(f"{answer['found']} of {count} entries were found on {mount.system}")
        return microseconds(answer["times"])

    def repeated(look):
        def measure(mount: Mount, _: int) -> dict[str, float]:
            first = look(mount)
            again = sorted(look(mount) for _ in range(3))[1]
            return {"first": first, "repeated": again}

        return measure

    def fill(dir: Path) -> None:
        harness.client.ask("fill", dir=dir, count=count, content=harness.small_entry)

    cold = (lambda _: host.drop(host.NAMES)) if host.may_drop_caches() else None
    series = {}
    with harness.systems.mounts(systems.READ, fill) as mounts:
        for name, look in (("ls -l", ls), ("glob", glob)):
            done = harness.interleave(mounts, 40, repeated(look), least=3, before=cold)
            series[f"{name} repeated"] = done["repeated"]
            if cold:
                series[f"{name} first"] = done["first"]
    return series


def dropped(harness: Harness) -> Series:
    """Kida's first get of each entry after the page cache was dropped."""
    if not host.may_drop_caches():
        return {}

    def measure(mount: Mount, _: int) -> dict[str, float]:
        answer = harness.engine.ask("hit", dir=mount.dir, tag="dropped", first=0, count=ROUND)
        return {"hit": microseconds(answer["times"])}

    def cold(_: int) -> None:
        host.drop(host.CONTENT)
        # The worker's own pages come back before anything counts.
        harness.engine.ask("hit", dir=own, tag="own", first=0, count=ROUND, passes=3)

    own = harness.systems.fresh()
    harness.engine.ask("store", dir=own, tag="own", first=0, count=ROUND)
    with (
        harness.systems.mounts(systems.READ) as mounts,
        harness.systems.mount(KIDAFS[0], options=("--memory", "0")) as without,
    ):
        without.system = f"{KIDAFS[0]}, --memory 0"
        mounts.append(without)
        for mount in mounts:
            harness.engine.ask("store", dir=mount.dir, tag="dropped", first=0, count=ROUND)
        return harness.interleave(mounts, 50, measure, before=cold)


def warm(harness: Harness) -> Series:
    """Kida's first get of each entry after a mount with --warm; beside it, on ext4, entries in the page cache."""
    plain, dir = harness.systems.fresh(), harness.systems.fresh() / "cache"
    dir.mkdir()
    stored = {"tag": "warm", "first": 0, "count": ROUND}
    harness.engine.ask("store", dir=plain, **stored)
    with harness.systems.mounted(dir):
        harness.engine.ask("store", dir=dir, **stored)

    def measure(mount: Mount, _: int) -> dict[str, float]:
        def hit() -> dict[str, float]:
            return {"hit": microseconds(harness.engine.ask("hit", dir=mount.dir, **stored)["times"])}

        if mount.system == PLAIN:
            return hit()
        with harness.systems.mounted(dir, *options[mount.system]) as pid:
            Mount(mount.system, dir, pid).settle()
            return hit()

    options = {"kidafs --warm": ("--warm",), "kidafs": ()}
    mounts = [Mount(PLAIN, plain), *(Mount(system, dir) for system in options)]
    return harness.interleave(mounts, 20, measure)
