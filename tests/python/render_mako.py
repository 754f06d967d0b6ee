"""Mako: render every template with module_directory=DIRECTORY.

A look-up is one template's module file: a hit if Mako left the file alone, a miss if it wrote it.
The folder also gets importlib's own `__pycache__/*.pyc` for each module; they are not counted.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.metadata import version
from pathlib import Path

import context
import report
from mako.lookup import TemplateLookup


def identity(path: Path) -> tuple[int, int] | None:
    """Mako writes a new file and renames it: so a rewritten one is another inode or another time."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def run(arguments: argparse.Namespace) -> report.Report:
    """One process's life with the engine."""
    sys.dont_write_bytecode = False  # PYTHONDONTWRITEBYTECODE may be set where this runs
    result = report.Report("mako", version("mako"))
    lookup = TemplateLookup([str(arguments.templates)], module_directory=str(arguments.directory))
    names = report.files_of(arguments.templates)
    modules = {name: arguments.directory / f"{name}.py" for name in names}
    before = {name: identity(path) for name, path in modules.items()}
    for name in names:
        result.render(name, lambda: lookup.get_template(name).render_unicode(**context.values()))
    for name, path in modules.items():
        after = identity(path)
        if before[name] is not None and after == before[name]:
            result.hits += 1
            continue
        result.misses += 1
        if after is None:
            result.lost += 1
        else:
            result.stores += 1
    return result


if __name__ == "__main__":
    report.main(run, report.FOLDER.parent / "engines" / "mako")
