"""importlib: import every module with its bytecode under DIRECTORY, as PYTHONPYCACHEPREFIX has it.

The 'templates' are modules: each has a function `render`. A miss is a module that was compiled.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import platform
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

import report


def count(result: report.Report, folder: Path) -> None:
    """Counts what importlib does for the modules of `folder`: every call goes to it unchanged."""
    compile_source = SourceFileLoader.source_to_code
    store = SourceFileLoader._cache_bytecode

    def counted_compile(self, data, path, *rest, **keywords):
        if Path(path).is_relative_to(folder):
            result.misses += 1
        return compile_source(self, data, path, *rest, **keywords)

    def counted_store(self, source_path, bytecode_path, data):
        store(self, source_path, bytecode_path, data)
        if Path(source_path).is_relative_to(folder):
            if Path(bytecode_path).exists():
                result.stores += 1
            else:
                result.lost += 1

    SourceFileLoader.source_to_code = counted_compile
    SourceFileLoader._cache_bytecode = counted_store


def run(arguments: argparse.Namespace) -> report.Report:
    """One process's life with importlib."""
    result = report.Report("importlib", platform.python_version())
    folder = arguments.templates.resolve()
    sys.dont_write_bytecode = False  # PYTHONDONTWRITEBYTECODE may be set where this runs
    sys.pycache_prefix = str(arguments.directory.resolve())
    sys.path.insert(0, str(folder))
    count(result, folder)
    for name in report.files_of(folder, (".py",)):
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        result.render(name, lambda: importlib.import_module(module).render())
    # What was not compiled came from the cache.
    result.hits = result.templates - result.misses
    return result


if __name__ == "__main__":
    report.main(run, report.FOLDER.parent / "engines" / "modules")
