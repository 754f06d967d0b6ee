"""What is measured of the daemon itself: its messages, its growth, its rest."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import host
from lab import Lab, Series
from systems import KIDAFS, PLAIN, Place
from workloads import ROUND

HITS = 1000  # for 'no message in so many'


def stats(place: Place) -> dict:
    """What the daemon tells about itself."""
    return json.loads((place.dir / ".kidafs" / "stats.json").read_text())


class Messages:
    """Counts the messages that something takes, by operation, less those of counting."""

    def __init__(self, place: Place) -> None:
        self.place = place
        # What one counting leaves to be forgotten is forgotten in a later one: it takes some to settle.
        *_, before, after = (self.requests() for _ in range(6))
        self.own = after - before

    def requests(self) -> Counter:
        return Counter(stats(self.place)["requests"])

    def of(self, do) -> Counter:
        """The messages that `do` takes, without FORGET: it has no reply, so nobody waits for it, and those that
        counting leaves behind come when they come."""
        before = self.requests()
        do()
        found = self.requests() - before - self.own
        del found["forget"]
        return found


def messages(lab: Lab) -> dict:
    """(h) FUSE messages of each operation, as the daemon counts them, and once as strace sees them."""
    with lab.systems.place(KIDAFS[0]) as place:
        count = Messages(place)
        keys = {"dir": place.dir, "tag": "messages", "first": 0, "count": ROUND}

        def per_call(do: str, calls: int = ROUND, **more) -> dict[str, float]:
            found = count.of(lambda: lab.engine.ask(do, **keys, **more))
            return {name: round(number / calls, 3) for name, number in sorted(found.items())}

        again = {"calls": HITS, "passes": HITS // ROUND}
        found = {
            "miss first": per_call("miss"),
            "miss repeated": per_call("miss", **again),
            "store": per_call("store"),
            "hit first": per_call("hit"),
            "hit second": per_call("hit"),
            "hit third": per_call("hit"),
            "hit repeated": per_call("hit", **again),
            "replacing store": per_call("store"),
        }

        def look() -> None:
            subprocess.run(["ls", "-l", place.dir], stdout=subprocess.DEVNULL, check=True)

        listed = {}
        for name in ("ls -l first", "ls -l repeated"):
            listed[name] = dict(sorted(count.of(look).items()))
        return {
            "calls": found,
            "listing": {"entries": ROUND, **listed},
            "strace": seen_by_strace(lab, place, count),
        }


def seen_by_strace(lab: Lab, place: Place, count: Messages) -> dict[str, int]:
    """A round as the daemon counts it and as strace sees it: a read of /dev/fuse that returns something is one
    message. Nothing where strace may not attach."""
    log = lab.systems.fresh() / "strace"
    command = ["strace", "-f", "-q", "-P", "/dev/fuse", "-e", "trace=read,readv"]
    tracer = subprocess.Popen(
        [*command, "-o", log, "-p", str(place.pid)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        # The process's status tells when it is traced.
        while not is_traced(place.pid):
            if tracer.poll() is not None:
                print(f"strace may not attach: {tracer.stderr.read().strip()}", flush=True)
                return {}
            time.sleep(0.01)
        before = messages_in(log)
        counted_before = count.requests()
        keys = {"dir": place.dir, "tag": "strace", "first": 0, "count": ROUND}
        for do in ("miss", "store", "hit", "hit"):
            lab.engine.ask(do, **keys)
        counted = count.requests() - counted_before - count.own
        host.await_quiet(place.pid)
    finally:
        tracer.send_signal(signal.SIGINT)  # strace then detaches
        tracer.wait(10)
    # Two whole countings are in what strace saw.
    seen = messages_in(log) - before - 2 * count.own.total()
    return {"counted": counted.total(), "seen": seen}


def is_traced(pid: int) -> bool:
    """Whether every thread has a tracer."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if re.search(r"^TracerPid:\s*0$", (thread / "status").read_text(), re.M):
                return False
    return True


def messages_in(log: Path) -> int:
    """Reads that returned something; a call that another thread's line cut in two counts where it returns."""
    if not log.exists():
        return 0
    return len(re.findall(r"read\w*(?:\(| resumed>).*\)\s+= [1-9]\d*$", log.read_text(errors="replace"), re.M))


def scale(lab: Lab) -> dict[str, Series]:
    """(g) With 1,000, 10,000 and 100,000 entries: time to mount, memory, hit, miss, store, sweep."""
    options = ("--max-entries", "1000000", "--max-size", "16GiB", "--sweep-interval", "1h")
    plain, dir = lab.systems.fresh(), lab.systems.fresh() / "cache"
    dir.mkdir()
    ask = {"content": lab.small_entry}
    batch = 100

    def calls(place: Place, count: int) -> dict[str, float]:
        """The native client's calls among `count` entries; the first hits are the mount's first."""
        first = lab.random.randrange(count - batch)
        numbers = {}
        for name, operation, start in (
            ("hit first", "hit", first),
            ("hit repeated", "hit", first),
            ("miss first", "miss", count),
            ("store", "store", count),
        ):
            done = lab.client.ask("each", operation=operation, dir=place.dir, first=start, count=batch, **ask)
            numbers[name] = sorted(done["nanoseconds"])[batch // 2] / 1000
        lab.client.ask("remove", dir=place.dir, first=count, count=batch)
        return numbers

    def measure(count: int):
        def once(place: Place, _: int) -> dict[str, float]:
            if place.system == PLAIN:
                return calls(place, count)
            began = time.perf_counter()
            with lab.systems.mounted(dir, *options) as pid:
                served = Place(place.system, dir, pid)
                numbers = {"mount": (time.perf_counter() - began) * 1e6}
                served.settle()
                numbers["resident bytes after mount"] = host.resident_bytes(pid) - content(served)
                numbers |= calls(served, count)
                served.settle()
                numbers["sweep"] = sweep(pid) * 1e6
                numbers["resident bytes"] = host.resident_bytes(pid) - content(served)
                return numbers

        return once

    def content(place: Place) -> int:
        return stats(place)["memory"]["bytes"]

    results = {}
    there = 0
    for count in (1_000, 10_000) if lab.quick else (1_000, 10_000, 100_000):
        more = {"first": there, "count": count - there, **ask}
        lab.client.ask("fill", dir=plain, **more)
        # Through the mount: so the entries have what the daemon adds to them.
        with lab.systems.mounted(dir, *options):
            lab.client.ask("each", operation="store", dir=dir, **more)
        there = count
        places = [Place(PLAIN, plain), Place(KIDAFS[0], dir)]
        results[str(count)] = lab.interleave(places, 15, measure(count), least=3)
    return results


def sweep(pid: int) -> float:
    """Seconds from the signal until the sweeping thread has come to rest, to about 5 ms."""
    thread = next(thread for thread in Path(f"/proc/{pid}/task").iterdir() if "sweep" in (thread / "comm").read_text())

    def used() -> int:
        return int((thread / "schedstat").read_text().split()[0])

    before = now = used()
    began = changed = time.perf_counter()
    os.kill(pid, signal.SIGUSR1)
    # At rest: it has run, and has not for 50 ms.
    while now == before or time.perf_counter() - changed < 0.05:
        if time.perf_counter() - began > 30:
            raise host.Failure("the daemon did not sweep within 30 s of SIGUSR1")
        time.sleep(0.001)
        last, now = now, used()
        if now != last:
            changed = time.perf_counter()
    return changed - began


def idle(lab: Lab) -> dict:
    """(i) Processor time of daemons that nobody uses, after a burst of use."""
    seconds = 10 if lab.quick else 60
    with lab.systems.places(KIDAFS) as places:
        for place in places:
            lab.engine.ask("round", dir=place.dir, tag="idle", first=0, count=ROUND)
        for place in places:
            place.settle()
        ticks = {place.system: host.cpu_seconds(place.pid) for place in places}
        exact = {place.system: host.cpu_nanoseconds(place.pid) for place in places}
        time.sleep(seconds)
        return {
            "seconds": seconds,
            "cpu_seconds": {place.system: host.cpu_seconds(place.pid) - ticks[place.system] for place in places},
            "thread_seconds": {
                place.system: (host.cpu_nanoseconds(place.pid) - exact[place.system]) / 1e9 for place in places
            },
        }
