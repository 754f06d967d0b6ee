"""Kida: render every template with its bytecode cache in DIRECTORY."""

from __future__ import annotations

import argparse
import copy
from importlib.metadata import version
from pathlib import Path

import context
import report
from kida import Environment, FileSystemLoader
from kida.bytecode_cache import BytecodeCache


class CountingCache(BytecodeCache):
    """The engine's own cache, counted: every call goes to it unchanged."""

    def __init__(self, directory: Path, counts: report.Report) -> None:
        super().__init__(directory)
        self.counts = counts

    def get(self, name, source_hash, **keywords):
        found = super().get(name, source_hash, **keywords)
        if found[0] is None:
            self.counts.misses += 1
        else:
            self.counts.hits += 1
            self.counts.precomputed += found[2] is not None
        return found

    def set(self, name, source_hash, code, *, context_hash=None, **keywords):
        super().set(name, source_hash, code, context_hash=context_hash, **keywords)
        if self._make_path(name, source_hash, context_hash).exists():
            self.counts.stores += 1
            self.counts.precomputed += bool(keywords.get("precomputed"))
        else:
            self.counts.lost += 1


class FixedContext(Environment):
    """The engine with the same static context for every template.

    Release 0.12.0 writes what a template sets at its top level into the context it was given, so
    the keys of later templates would depend on which earlier ones were compiled in this process.
    """

    @property
    def static_context(self):
        return copy.deepcopy(self.original_context)

    @static_context.setter
    def static_context(self, value):
        self.original_context = value


def run(arguments: argparse.Namespace) -> report.Report:
    """One process's life with the engine."""
    result = report.Report("kida", version("kida-templates"))
    environment = FixedContext(
        loader=FileSystemLoader(arguments.templates),
        bytecode_cache=CountingCache(arguments.directory, result),
        static_context=context.STATIC if arguments.static_context else None,
        preserve_ast=not arguments.no_ast,
    )
    context.prepare(environment)
    for name in report.files_of(arguments.templates):
        result.render(name, lambda: environment.get_template(name).render(context.values()))
    return result


def options(parser: argparse.ArgumentParser) -> None:
    """What kida alone has."""
    parser.add_argument("--static-context", action="store_true", help="evaluate what is known when compiling")
    parser.add_argument("--no-ast", action="store_true", help="store no AST section")


if __name__ == "__main__":
    report.main(run, report.FOLDER.parent / "templates", options)
