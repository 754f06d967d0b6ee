"""One kida process: loads and renders every page of a folder with its bytecode cache in another, and prints
the cache's hits, its misses, and the nanoseconds that it took without the interpreter's start and the imports.

    startup.py TEMPLATES CACHE
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from kida import Environment, FileSystemLoader
from kida.bytecode_cache import BytecodeCache

sys.path.insert(0, str(Path(__file__).parent))
import templates


class CountingCache(BytecodeCache):
    """The engine's own cache, counted: every call goes to it unchanged."""

    hits = misses = 0

    def get(self, name, source_hash, **keywords):
        found = super().get(name, source_hash, **keywords)
        if found[0] is None:
            self.misses += 1
        else:
            self.hits += 1
        return found


def main(folder: str, directory: str) -> None:
    cache = CountingCache(Path(directory))
    began = time.perf_counter_ns()
    environment = Environment(loader=FileSystemLoader(folder), bytecode_cache=cache)
    for name in templates.names():
        if "</html>" not in environment.get_template(name).render(**templates.CONTEXT):
            sys.exit(f"{name} was not rendered")
    print(cache.hits, cache.misses, time.perf_counter_ns() - began)


if __name__ == "__main__":
    main(*sys.argv[1:])
