"""What every client of this folder shares: its arguments, its processes and its report.

A client is a fresh process that lets one unmodified engine work on a cache directory. It counts
from outside what the cache did, and reports in one shape for all engines:

    engine, version   the engine's name and release
    processes         how many processes ran at once
    templates         how many templates one process rendered
    hits              look-ups that the cache answered
    misses            look-ups that it did not
    stores            entries that were there after the engine had stored them
    lost              entries that were not: engines do not tell when they cannot write
    precomputed       entries, hit or stored, that carry precomputed values (kida only)
    digests           template name -> SHA-256 of its output as UTF-8
    errors            template name -> what went wrong; a process that died counts under "process N"

The counts are sums over all processes. Outputs that differ between processes are an error.
The exit status is 1 if there was any error.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
COUNTS = ("hits", "misses", "stores", "lost", "precomputed")


@dataclass
class Report:
    """One process's report, or the sum of several."""

    engine: str
    version: str
    processes: int = 1
    templates: int = 0
    hits: int = 0
    misses: int = 0
    stores: int = 0
    lost: int = 0
    precomputed: int = 0
    digests: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def render(self, name: str, render: Callable[[], str]) -> None:
        """Renders one template; whatever is raised is that template's error."""
        self.templates += 1
        try:
            self.digests[name] = hashlib.sha256(render().encode()).hexdigest()
        except Exception as error:  # the next template is still worth a try
            self.errors[name] = f"{type(error).__name__}: {error}"

    def add(self, other: Report) -> None:
        """Adds another process's report to this sum."""
        self.processes += other.processes
        self.templates = max(self.templates, other.templates)
        for count in COUNTS:
            setattr(self, count, getattr(self, count) + getattr(other, count))
        self.errors |= other.errors
        for name, digest in other.digests.items():
            if self.digests.setdefault(name, digest) != digest:
                self.errors[name] = "two processes rendered it differently"

    def __str__(self) -> str:
        text = (
            f"{self.engine} {self.version}, {self.processes} process(es): "
            f"{self.templates} templates, {self.hits} hits, {self.misses} misses, "
            f"{self.stores} stores, {len(self.errors)} errors"
        )
        if self.lost:
            text += f", {self.lost} entries lost"
        return text


def files_of(folder: Path, suffixes: tuple[str, ...] = ("",)) -> list[str]:
    """The names of all templates: every file that is neither hidden nor in a cache folder."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(
        name.as_posix()
        for name in names
        if name.name.endswith(suffixes)
        and not any(part.startswith(".") or part == "__pycache__" for part in name.parts)
    )


def main(
    run: Callable[[argparse.Namespace], Report],
    templates: Path,
    options: Callable[[argparse.ArgumentParser], None] = lambda _: None,
) -> None:
    """The life of a client: `run` works on the cache once and reports; `templates` is the default."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("directory", type=Path, help="the cache directory")
    parser.add_argument("templates", type=Path, nargs="?", default=templates)
    parser.add_argument("--json", action="store_true", help="print the whole report")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the whole report there too")
    parser.add_argument("--procs", type=int, default=1, metavar="N", help="so many processes at once")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options(parser)
    arguments = parser.parse_args()

    if arguments.child:
        # Everything is imported: tell the parent, and begin when all others are as far.
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps(asdict(run(arguments))))
        return
    report = run(arguments) if arguments.procs == 1 else run_at_once(arguments.procs)
    document = json.dumps(asdict(report), indent=2, ensure_ascii=False)
    if arguments.report:
        arguments.report.write_text(document + "\n")
    print(document if arguments.json else report)
    if not arguments.json:
        for name, error in report.errors.items():
            print(f"  {name}: {error}", file=sys.stderr)
    sys.exit(1 if report.errors else 0)


def run_at_once(count: int) -> Report:
    """Starts `count` of this client, lets them begin together, and sums up their reports."""
    command = [sys.executable, *sys.argv, "--child"]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    for child in children:
        child.stdout.readline()
    total = None
    errors = {}
    # All are let go before any is waited for.
    for child in children:
        try:
            child.stdin.write("\n")
            child.stdin.flush()
        except BrokenPipeError:
            pass  # it died: its exit status says so below
    for number, child in enumerate(children, 1):
        output, _ = child.communicate()
        if child.returncode != 0:
            errors[f"process {number}"] = f"ended with status {child.returncode}"
            continue
        report = Report(**json.loads(output))
        if total is None:
            total = report
        else:
            total.add(report)
    if total is None:
        sys.exit(f"all {count} processes failed")
    total.errors |= errors
    return total
