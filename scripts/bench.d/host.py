"""The machine: what it is, what is mounted, a folder to work in, and its end, however it comes."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

DROP_CACHES = Path("/proc/sys/vm/drop_caches")
CONTENT, NAMES = "1", "2"  # as the kernel's documentation of drop_caches numbers them


class Failure(Exception):
    """One sentence for the person who runs the benchmark."""


def mounts() -> list[tuple[Path, str]]:
    """Every mount point with its filesystem's type, in the order of mounting."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields, _, rest = line.partition(b" - ")
        point = re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), fields.split()[4])
        found.append((Path(os.fsdecode(point)), os.fsdecode(rest.split()[0])))
    return found


def is_mounted(path: Path) -> bool:
    """By the kernel's table: a stat of a dead mount fails, and of a hung one hangs."""
    return any(point == path for point, _ in mounts())


def filesystem_of(path: Path) -> str:
    """The type of the filesystem that holds `path`."""
    found = [(point, kind) for point, kind in mounts() if path.is_relative_to(point)]
    return max(enumerate(found), key=lambda item: (len(item[1][0].parts), item[0]))[1][1]


def has_journal(path: Path) -> bool:
    """Whether the ext4 that holds `path` has a journal."""
    number = os.stat(path).st_dev
    device = os.path.realpath(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    return any(Path("/proc/fs/jbd2").glob(f"{os.path.basename(device)}-*"))


def await_mount(path: Path, process: subprocess.Popen, seconds: float = 10) -> None:
    """Returns once something is mounted on `path`; the kernel tells of every change of its table."""
    end = time.monotonic() + seconds
    with open("/proc/self/mountinfo", "rb") as table:
        poll = select.poll()
        poll.register(table, select.POLLPRI)
        while not is_mounted(path):
            if process.poll() is not None or time.monotonic() > end:
                raise Failure(f"{process.args[0]} did not mount within {seconds:.0f} s")
            poll.poll(200)


def unmount(path: Path) -> None:
    """Nothing is mounted on `path` afterwards; what is busy or dead is detached."""
    for command in (
        ["umount", "--", path],
        ["fusermount3", "-u", "--", path],
        ["umount", "-l", "--", path],
        ["fusermount3", "-u", "-z", "--", path],
    ):
        if not is_mounted(path):
            return
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if is_mounted(path):
        raise Failure(f"{path} is still mounted: unmount it, then remove it")


@contextlib.contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """A fresh folder; removed in the end, unless something is still mounted in it."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=parent)).resolve()
    try:
        yield folder
    finally:
        left = [str(point) for point, _ in mounts() if point.is_relative_to(folder)]
        if left:
            raise Failure(f"still mounted, so nothing is removed: {', '.join(left)}")
        shutil.rmtree(folder)


@contextlib.contextmanager
def orderly_end() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP end the program as Ctrl-C does: through every `finally`."""

    def interrupt(number, _):
        # Once is enough: a second one is not to cut the unmounting short.
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def may_drop_caches() -> bool:
    """Only root may."""
    return os.access(DROP_CACHES, os.W_OK)


def drop(what: str) -> None:
    """Drops the page cache (CONTENT), or names and attributes (NAMES), of every filesystem."""
    os.sync()  # what is dirty is not dropped
    DROP_CACHES.write_text(what)


def cpu_nanoseconds(pid: int) -> int:
    """Processor time of all threads that a process has now."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += int((thread / "schedstat").read_text().split()[0])
    return total


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, ended threads included, to a clock tick (10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def await_quiet(pid: int, seconds: float = 2) -> None:
    """Returns once a process has used no processor time for 10 ms, or after `seconds`."""
    end = time.monotonic() + seconds
    used = cpu_nanoseconds(pid)
    while time.monotonic() < end:
        time.sleep(0.01)
        before, used = used, cpu_nanoseconds(pid)
        if before == used:
            return


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^VmRSS:\s*(\d+) kB", status, re.M)[1]) * 1024


def describe() -> dict:
    """What a reader has to know of the machine; nothing that identifies it."""
    model = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    return {
        "kernel": re.match(r"[\d.]*\d", platform.release())[0],
        "architecture": platform.machine(),
        "processor": model[1] if model else "unknown",
        "cpus": os.cpu_count(),
        "memory_gib": round(int(memory[1]) / (1 << 20)),
        "root": os.geteuid() == 0,
    }


def version_of(*command: str | Path) -> str:
    """The first number with dots in what a program says about itself."""
    output = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    found = re.search(r"\d+\.\d+[\w.-]*", output)
    return found[0] if found else "unknown"
