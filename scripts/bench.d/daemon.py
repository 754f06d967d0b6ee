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
from harness import Harness, Series
from systems import KIDAFS, PLAIN, Mount
from workloads import ROUND

HITS = 1000  # for 'no message in so many'


def stats(mount: Mount) -> dict:
    """What the daemon tells about itself."""
    return json.loads((mount.dir / ".kidafs" / "stats.json").read_text())


class Messages:
    """Counts the messages that something takes, by operation, less those of counting."""

    def __init__(self, mount: Mount) -> None:
        self.mount = mount
        # What one counting leaves to be forgotten is forgotten in a later one: it takes some to settle.
        *_, before, after = (self.requests() for _ in range(6))
        self.own = after - before

    def requests(self) -> Counter:
        return Counter(stats(self.mount)["requests"])

    def of(self, do) -> Counter:
        """The messages that `do` takes, without FORGET: it has no reply, so nobody waits for it, and those that
        counting leaves behind come when they come."""
        before = self.requests()
        do()
        found = self.requests() - before - self.own
        del found["forget"]
        return found


def messages(harness: Harness) -> dict:
    """FUSE messages of each operation, as the daemon counts them, and once as strace sees them."""
    with harness.systems.mount(KIDAFS[0]) as mount:
        count = Messages(mount)
        keys = {"dir": mount.dir, "tag": "messages", "first": 0, "count": ROUND}

        def per_call(do: str, calls: int = ROUND, **more) -> dict[str, float]:
            found = count.of(lambda: harness.engine.ask(do, **keys, **more))
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
            subprocess.run(["ls", "-l", mount.dir], stdout=subprocess.DEVNULL, check=True)

        listed = {}
        for name in ("ls -l first", "ls -l repeated"):
            listed[name] = dict(sorted(count.of(look).items()))
        return {
            "calls": found,
            "listing": {"entries": ROUND, **listed},
            "strace": seen_by_strace(harness, mount, count),
        }


def seen_by_strace(harness: Harness, mount: Mount, count: Messages) -> dict[str, int]:
    """A round as the daemon counts it and as strace sees it: a read of /dev/fuse that returns something is one
    message. Nothing where strace may not attach."""
    log = harness.systems.fresh() / "strace"
    command = ["strace", "-f", "-q", "-P", "/dev/fuse", "-e", "trace=read,readv"]
    tracer = subprocess.Popen(
        [*command, "-o", log, "-p", str(mount.pid)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        # The process's status tells when it is traced.
        while not is_traced(mount.pid):
            if tracer.poll() is not None:
                print(f"strace may not attach: {tracer.stderr.read().strip()}", flush=True)
                return {}
            time.sleep(0.01)
        before = messages_in(log)
        counted_before = count.requests()
        keys = {"dir": mount.dir, "tag": "strace", "first": 0, "count": ROUND}
        for do in ("miss", "store", "hit", "hit"):
            harness.engine.ask(do, **keys)
        counted = count.requests() - counted_before - count.own
        host.await_quiet(mount.pid)
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


def scale(harness: Harness) -> dict[str, Series]:
    """With 1,000, 10,000 and 100,000 entries: time to mount, memory, hit, miss, store, sweep."""
    options = ("--max-entries", "1000000", "--max-size", "16GiB", "--sweep-interval", "1h")
    plain, dir = harness.systems.fresh(), harness.systems.fresh() / "cache"
    dir.mkdir()
    ask = {"content": harness.small_entry}
    batch = 100

    def calls(mount: Mount, count: int) -> dict[str, float]:
        """The native client's calls among `count` entries; the first hits are the mount's first."""
        first = harness.random.randrange(count - batch)
        numbers = {}
        for name, operation, start in (
            ("hit first", "hit", first),
            ("hit repeated", "hit", first),
            ("miss first", "miss", count),
            ("store", "store", count),
        ):
            done = harness.client.ask("each", operation=operation, dir=mount.dir, first=start, count=batch, **ask)
            numbers[name] = sorted(done["nanoseconds"])[batch // 2] / 1000
        harness.client.ask("remove", dir=mount.dir, first=count, count=batch)
        return numbers

    def measure(count: int):
        def once(mount: Mount, _: int) -> dict[str, float]:
            if mount.system == PLAIN:
                return calls(mount, count)
            began = time.perf_counter()
            with harness.systems.mounted(dir, *options) as pid:
                served = Mount(mount.system, dir, pid)
                numbers = {"mount": (time.perf_counter() - began) * 1e6}
                served.settle()
                numbers["resident bytes after mount"] = host.resident_bytes(pid) - content(served)
                numbers |= calls(served, count)
                served.settle()
                numbers["sweep"] = sweep(pid) * 1e6
                numbers["resident bytes"] = host.resident_bytes(pid) - content(served)
                return numbers

        return once

    def content(mount: Mount) -> int:
        return stats(mount)["memory"]["bytes"]

    results = {}
    there = 0
    for count in (1_000, 10_000) if harness.quick else (1_000, 10_000, 100_000):
        more = {"first": there, "count": count - there, **ask}
        harness.client.ask("fill", dir=plain, **more)
        # Through the mount: so the entries have what the daemon adds to them.
        with harness.systems.mounted(dir, *options):
            harness.client.ask("each", operation="store", dir=dir, **more)
        there = count
        mounts = [Mount(PLAIN, plain), Mount(KIDAFS[0], dir)]
        results[str(count)] = harness.interleave(mounts, 15, measure(count), least=3)
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


def idle(harness: Harness) -> dict:
    """Processor time of daemons that nobody uses, after a burst of use."""
    seconds = 10 if harness.quick else 60
    with harness.systems.mounts(KIDAFS) as mounts:
        for mount in mounts:
            harness.engine.ask("round", dir=mount.dir, tag="idle", first=0, count=ROUND)
        for mount in mounts:
            mount.settle()
        ticks = {mount.system: host.cpu_seconds(mount.pid) for mount in mounts}
        exact = {mount.system: host.cpu_nanoseconds(mount.pid) for mount in mounts}
        time.sleep(seconds)
        return {
            "seconds": seconds,
            "cpu_seconds": {mount.system: host.cpu_seconds(mount.pid) - ticks[mount.system] for mount in mounts},
            "thread_seconds": {
                mount.system: (host.cpu_nanoseconds(mount.pid) - exact[mount.system]) / 1e9 for mount in mounts
            },
        }
