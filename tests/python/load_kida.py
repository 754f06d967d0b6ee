"""Kida in an application that goes on: render every template, again and again, until the standard
input ends.

Each round is a fresh environment over the one BytecodeCache of the process, so every template goes
through the cache once a round. The counts are sums over the rounds, and `processes` counts the
rounds; a round that renders something else than one before it is an error. After each round a line
goes to the standard error.
"""

from __future__ import annotations

import argparse
import select
import sys
from importlib.metadata import version

import context
import report
from kida import FileSystemLoader
from render_kida import CountingCache, FixedContext


def run(arguments: argparse.Namespace) -> report.Report:
    """Rounds until the end of the standard input, one at least."""
    total = report.Report("kida", version("kida-templates"), processes=0)
    cache = CountingCache(arguments.directory, total)
    while True:
        result = report.Report(total.engine, total.version)
        cache.counts = result
        environment = FixedContext(loader=FileSystemLoader(arguments.templates), bytecode_cache=cache)
        context.prepare(environment)
        for name in report.files_of(arguments.templates):
            result.render(name, lambda: environment.get_template(name).render(context.values()))
        total.add(result)
        print(f"round {total.processes}", file=sys.stderr, flush=True)
        if select.select([sys.stdin], [], [], 0)[0]:
            return total


if __name__ == "__main__":
    report.main(run, report.FOLDER.parent / "templates")
