"""What is measured, one function a workload; the letters are those that `--only` takes."""

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
from lab import Lab, Series, microseconds
from partners import Partner
from systems import KIDAFS, PEERS, PLAIN, Place

ROUND = 40  # entries in a round
SLOW_ROUND = 10  # in those of the peers, whose calls take so much longer


def round_of(place: Place) -> int:
    return SLOW_ROUND if place.system in PEERS else ROUND


def engine_calls(lab: Lab, engine: str, seconds: float) -> Series:
    """An entry's life in a real engine's own cache class."""

    def measure(place: Place, repetition: int) -> dict[str, float]:
        answer = lab.engine.ask("round", engine=engine, dir=place.dir, tag=repetition, first=0, count=round_of(place))
        return {name: microseconds(times) for name, times in answer.items()}

    with lab.systems.places(systems.ALL) as places:
        return lab.interleave(places, seconds, measure)


def kida(lab: Lab) -> Series:
    """(a) kida's BytecodeCache: miss, store, hit."""
    return engine_calls(lab, "kida", 130)


def jinja2(lab: Lab) -> Series:
    """(d) Jinja2's FileSystemBytecodeCache: the same."""
    return engine_calls(lab, "jinja2", 60)


def start_up(lab: Lab) -> Series:
    """(b) A new kida process that loads and renders 200 templates, all of them in the cache."""
    folder = lab.systems.fresh()
    templates.write(folder)
    script = Path(__file__).with_name("startup.py")

    def run(place: Place) -> dict[str, float]:
        began = time.perf_counter_ns()
        done = subprocess.run([lab.python, "-B", "-I", script, folder, place.dir], stdout=subprocess.PIPE, check=True)
        whole = time.perf_counter_ns() - began
        hits, misses, inside = (int(number) for number in done.stdout.split())
        return {"process": whole / 1000, "load and render": inside / 1000, "hits": hits, "misses": misses}

    def measure(place: Place, repetition: int) -> dict[str, float]:
        numbers = run(place)
        if repetition > 0 and (numbers["misses"] or numbers["hits"] != templates.COUNT):
            raise host.Failure(f"{numbers['misses']} misses on {place.system}, where all was stored before")
        return {name: numbers[name] for name in ("process", "load and render")}

    # The repetition that does not count fills the cache.
    with lab.systems.places(systems.READ) as places:
        return lab.interleave(places, 120, measure)


def native(lab: Lab) -> Series:
    """(c) The native client with 1, 2 and 4 threads. Calls a second, over all threads; single calls in microseconds."""
    files = 64

    def measure(place: Place, repetition: int) -> dict[str, float]:
        first = 1_000_000 * (repetition + 1)
        ask = {"dir": place.dir, "content": lab.entry}
        numbers = {}
        if repetition == 0:
            lab.client.ask("each", operation="store", first=0, count=files, **ask)
        hits = [lab.client.ask("each", operation="hit", first=0, count=files, **ask) for _ in range(3)]
        numbers["hit"] = microseconds(hits[-1]["nanoseconds"])
        for threads in (1, 2, 4):
            rush = {"threads": threads, "milliseconds": 50, **ask}
            done = lab.client.ask("rush", operation="hit", first=0, count=files, **rush)
            numbers[f"hits a second, {threads} threads"] = done["operations"] / done["seconds"]
        stores = folder_of(place)
        ask["dir"] = stores
        done = lab.client.ask("each", operation="store", first=first, count=round_of(place), **ask)
        numbers["store"] = microseconds(done["nanoseconds"])
        for threads in (1, 2, 4):
            first += 100_000
            rush = {"threads": threads, "milliseconds": 50, **ask}
            done = lab.client.ask("rush", operation="store", first=first, count=0, **rush)
            numbers[f"stores a second, {threads} threads"] = done["operations"] / done["seconds"]
        if place.system == PLAIN:
            done = lab.client.ask("each", operation="flushed-store", first=0, count=10, **ask)
            numbers["store, flushed"] = microseconds(done["nanoseconds"])
        lab.client.ask("clear", dir=stores)
        return numbers

    def folder_of(place: Place) -> Path:
        """Apart from the hits' files, so that it can be emptied."""
        folder = place.dir / "stores"
        folder.mkdir(exist_ok=True)
        return folder

    with lab.systems.places(systems.ALL) as places:
        return lab.interleave(places, 130, measure)


def processes(lab: Lab) -> Series:
    """(t) Hits of 1, 2 and 4 kida processes at a time. Calls a second, over all of them."""

    def measure(place: Place, _: int) -> dict[str, float]:
        numbers = {}
        for count in (1, 2, 4):
            with ThreadPoolExecutor(count) as pool:
                done = list(pool.map(lambda engine: rush(engine, place), engines[:count]))
            numbers[f"hits a second, {count} processes"] = sum(one["operations"] / one["seconds"] for one in done)
        return numbers

    def rush(engine: Partner, place: Place) -> dict:
        return engine.ask("rush", dir=place.dir, milliseconds=50, **stored)

    stored = {"tag": "rush", "first": 0, "count": ROUND}
    with contextlib.ExitStack() as stack:
        engines = [stack.enter_context(Partner(*lab.engine.process.args)) for _ in range(4)]
        places = stack.enter_context(lab.systems.places(systems.READ))
        for place in places:
            lab.engine.ask("store", dir=place.dir, **stored)
            for engine in engines:
                rush(engine, place)
        return lab.interleave(places, 30, measure)


def listing(lab: Lab) -> Series:
    """(e) `ls -l` and the engine's own glob of 10,000 entries, after names were dropped and again."""
    count = 10_000

    def ls(place: Place) -> float:
        began = time.perf_counter_ns()
        subprocess.run(
            ["ls", "-l", place.dir], stdout=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"}, check=True
        )
        return (time.perf_counter_ns() - began) / 1000

    def glob(place: Place) -> float:
        answer = lab.engine.ask("glob", dir=place.dir)
        if answer["found"] != count:
            raise host.Failure(f"{answer['found']} of {count} entries were found on {place.system}")
        return microseconds(answer["times"])

    def repeated(look):
        def measure(place: Place, _: int) -> dict[str, float]:
            first = look(place)
            again = sorted(look(place) for _ in range(3))[1]
            return {"first": first, "repeated": again}

        return measure

    def fill(dir: Path) -> None:
        lab.client.ask("fill", dir=dir, count=count, content=lab.small_entry)

    cold = (lambda _: host.drop(host.NAMES)) if host.may_drop_caches() else None
    series = {}
    with lab.systems.places(systems.READ, fill) as places:
        for name, look in (("ls -l", ls), ("glob", glob)):
            done = lab.interleave(places, 40, repeated(look), least=3, before=cold)
            series[f"{name} repeated"] = done["repeated"]
            if cold:
                series[f"{name} first"] = done["first"]
    return series


def dropped(lab: Lab) -> Series:
    """(f) kida's first get of each entry after the page cache was dropped."""
    if not host.may_drop_caches():
        return {}

    def measure(place: Place, _: int) -> dict[str, float]:
        answer = lab.engine.ask("hit", dir=place.dir, tag="dropped", first=0, count=ROUND)
        return {"hit": microseconds(answer["times"])}

    def cold(_: int) -> None:
        host.drop(host.CONTENT)
        # The worker's own pages come back before anything counts.
        lab.engine.ask("hit", dir=own, tag="own", first=0, count=ROUND, passes=3)

    own = lab.systems.fresh()
    lab.engine.ask("store", dir=own, tag="own", first=0, count=ROUND)
    with (
        lab.systems.places(systems.READ) as places,
        lab.systems.place(KIDAFS[0], options=("--memory", "0")) as without,
    ):
        without.system = f"{KIDAFS[0]}, --memory 0"
        places.append(without)
        for place in places:
            lab.engine.ask("store", dir=place.dir, tag="dropped", first=0, count=ROUND)
        return lab.interleave(places, 50, measure, before=cold)


def warm(lab: Lab) -> Series:
    """(w) kida's first get of each entry after a mount with --warm; beside it, on ext4, entries in the page cache."""
    plain, dir = lab.systems.fresh(), lab.systems.fresh() / "cache"
    dir.mkdir()
    stored = {"tag": "warm", "first": 0, "count": ROUND}
    lab.engine.ask("store", dir=plain, **stored)
    with lab.systems.mounted(dir):
        lab.engine.ask("store", dir=dir, **stored)

    def measure(place: Place, _: int) -> dict[str, float]:
        def hit() -> dict[str, float]:
            return {"hit": microseconds(lab.engine.ask("hit", dir=place.dir, **stored)["times"])}

        if place.system == PLAIN:
            return hit()
        with lab.systems.mounted(dir, *options[place.system]) as pid:
            Place(place.system, dir, pid).settle()
            return hit()

    options = {"kidafs --warm": ("--warm",), "kidafs": ()}
    places = [Place(PLAIN, plain), *(Place(system, dir) for system in options)]
    return lab.interleave(places, 20, measure)
