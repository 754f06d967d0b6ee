"""scripts/bench: measures kidafs beside plain directories and its peers, and writes docs/PERFORMANCE.md.

scripts/bench builds what is needed and runs this with CPython 3.14 and the engines.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import chart
import host
import report
import workloads
from harness import Harness
from systems import Systems, ext4_folder
from workers import Worker

import daemon

ROOT = Path(__file__).resolve().parents[2]
REPORT, CHART, NUMBERS = (ROOT / "docs" / name for name in ("PERFORMANCE.md", "performance.svg", "performance.json"))
QUICK = 0.12  # of a full run's time


def policy(harness: Harness) -> dict:
    """Hit rates of policies for the memory tier."""
    program = harness.systems.kidafs.parent / "bench-policy"
    return json.loads(subprocess.run([program], stdout=subprocess.PIPE, check=True).stdout)


# name in the results and for --only, in the order of the run
WORKLOADS = {
    "kida": workloads.kida,
    "start-up": workloads.start_up,
    "native": workloads.native,
    "processes": workloads.processes,
    "jinja2": workloads.jinja2,
    "listing": workloads.listing,
    "dropped": workloads.dropped,
    "warm": workloads.warm,
    "scale": daemon.scale,
    "messages": daemon.messages,
    "idle": daemon.idle,
    "policy": policy,
}


def measure(arguments: argparse.Namespace) -> dict:
    """Runs the workloads; the document that docs/performance.json is."""
    began = time.monotonic()
    tools = arguments.tools
    results = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(host.orderly_end())
        work = stack.enter_context(host.work_folder(arguments.work))
        disk, ext4 = stack.enter_context(ext4_folder(work))
        worker = Path(__file__).with_name("engine.py")
        harness = Harness(
            systems=Systems(disk, tools / "kidafs"),
            engine=stack.enter_context(Worker(sys.executable, "-B", "-s", worker)),
            client=stack.enter_context(Worker(tools / "bench-client")),
            entry=work / "entry",
            small_entry=work / "small-entry",
            python=Path(sys.executable),
            quick=arguments.quick,
            share=QUICK if arguments.quick else 1.0,
        )
        for file, whole in ((harness.entry, True), (harness.small_entry, False)):
            harness.engine.ask("sample", dir=work, file=file, whole=whole)
        for name in arguments.only:
            since = time.monotonic()
            results[name] = WORKLOADS[name](harness)
            say(f"{name}: {time.monotonic() - since:.0f} s")
    return {
        "run": {
            "date": datetime.date.today().isoformat(),
            "quick": arguments.quick,
            "seconds": round(time.monotonic() - began),
            "machine": host.describe() | {"ext4": ext4},
            "versions": {
                "kidafs": host.version_of(tools / "kidafs", "--version"),
                "CPython": sys.version.split()[0],
                "kida": version("kida-templates"),
                "Jinja2": version("Jinja2"),
                "bindfs": host.version_of("bindfs", "--version"),
                "rclone": host.version_of("rclone", "version"),
            },
        },
        "results": results,
    }


def as_json(document: dict) -> str:
    """A line for each list of numbers: readable, and a change shows in a diff."""

    def lines(value, indent: str) -> str:
        if isinstance(value, dict) and value:
            inner = indent + " "
            members = (f"{inner}{json.dumps(key)}: {lines(member, inner)}" for key, member in value.items())
            return "{\n" + ",\n".join(members) + f"\n{indent}}}"
        if isinstance(value, list):
            return json.dumps([round(number, 3) for number in value])
        return json.dumps(value, ensure_ascii=False)

    return lines(document, "") + "\n"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def names(text: str) -> list[str]:
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in WORKLOADS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no workload {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures kidafs, plain directories and peers side by side, and writes docs/PERFORMANCE.md, "
        "docs/performance.svg and docs/performance.json.",
    )
    parser.add_argument("--quick", action="store_true", help="about two minutes rather than fifteen")
    parser.add_argument(
        "--only",
        type=names,
        metavar="NAME,...",
        help=f"only these workloads, and write nothing: {', '.join(WORKLOADS)}",
    )
    parser.add_argument("--no-write", action="store_true", help="print the tables, write nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    parser.add_argument("--render", action="store_true", help="measure nothing: report and chart from the numbers")
    parser.add_argument("--check", action="store_true", help="measure nothing: do report, chart and numbers agree?")
    # From scripts/bench: what was built, and where there is room.
    parser.add_argument("--tools", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    if arguments.render or arguments.check:
        return from_numbers(arguments.check)
    partial = arguments.only is not None
    arguments.only = arguments.only or list(WORKLOADS)
    try:
        document = measure(arguments)
    except host.Failure as failure:
        say(f"bench: {failure}")
        return 1
    except subprocess.CalledProcessError as failed:
        say(f"bench: {' '.join(map(str, failed.cmd))} failed with status {failed.returncode}")
        return 1
    except KeyboardInterrupt:
        say("bench: interrupted; all is unmounted and removed")
        return 130
    if arguments.json:
        arguments.json.write_text(as_json(document))
    print(report.as_text(document))
    if not (arguments.no_write or partial):
        NUMBERS.write_text(as_json(document))
        return from_numbers(check=False)
    return 0


def from_numbers(check: bool) -> int:
    """Makes report and chart from the written numbers, or compares them."""
    document = json.loads(NUMBERS.read_text())
    made = {
        REPORT: report.fill(REPORT.read_text(), report.blocks(document)),
        CHART: chart.draw(document["results"]),
    }
    for path, text in made.items():
        if not check:
            path.write_text(text)
        elif path.read_text() != text:
            say(f"bench: docs/{path.name} is not what docs/{NUMBERS.name} makes; run scripts/bench --render")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
