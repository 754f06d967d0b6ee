"""Jinja2: render every template with a FileSystemBytecodeCache in DIRECTORY."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

import context
import report
from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader


class CountingCache(FileSystemBytecodeCache):
    """The engine's own cache, counted: every call goes to it unchanged."""

    def __init__(self, directory: Path, counts: report.Report) -> None:
        super().__init__(str(directory))
        self.counts = counts

    def load_bytecode(self, bucket):
        super().load_bytecode(bucket)
        if bucket.code is None:
            self.counts.misses += 1
        else:
            self.counts.hits += 1

    def dump_bytecode(self, bucket):
        super().dump_bytecode(bucket)
        if Path(self._get_cache_filename(bucket)).exists():
            self.counts.stores += 1
        else:
            self.counts.lost += 1


def run(arguments: argparse.Namespace) -> report.Report:
    """One process's life with the engine."""
    # Unlike the other engines, Jinja2 does not make the folder.
    arguments.directory.mkdir(parents=True, exist_ok=True)
    result = report.Report("jinja2", version("jinja2"))
    environment = Environment(
        loader=FileSystemLoader(arguments.templates),
        bytecode_cache=CountingCache(arguments.directory, result),
        autoescape=True,
    )
    for name in report.files_of(arguments.templates):
        result.render(name, lambda: environment.get_template(name).render(context.values()))
    return result


if __name__ == "__main__":
    report.main(run, report.FOLDER.parent / "engines" / "jinja2")
