"""Kida: a developer's day. Templates are edited one after the other, and each is rendered again at once."""

from __future__ import annotations

import argparse
from pathlib import Path

from kida import Environment, FileSystemLoader
from kida.bytecode_cache import BytecodeCache


def main() -> None:
    """Prints the number of renders, all of them right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="the cache directory")
    parser.add_argument("templates", type=Path, help="where the templates are made")
    parser.add_argument("--count", type=int, default=20, help="templates")
    parser.add_argument("--edits", type=int, default=500, help="edits of each")
    parser.add_argument("--roots", type=int, default=1, help="folders with the same templates' names")
    arguments = parser.parse_args()

    rendered = 0
    for edit in range(arguments.edits):
        for root in range(arguments.roots):
            folder = arguments.templates / str(root)
            folder.mkdir(parents=True, exist_ok=True)
            # With one root each edit is a change; with more, each has its own sources, which stay.
            version = f"{root}-{edit if arguments.roots == 1 else 0}"
            for number in range(arguments.count):
                (folder / f"page{number}.html").write_text(f"{version}: {{{{ number }}}}\n")
            environment = Environment(
                loader=FileSystemLoader(folder),
                bytecode_cache=BytecodeCache(arguments.directory),
            )
            for number in range(arguments.count):
                text = environment.get_template(f"page{number}.html").render(number=number)
                if text.strip() != f"{version}: {number}":
                    raise SystemExit(f"page{number}.html of {version} is {text!r}")
                rendered += 1
    print(rendered)


if __name__ == "__main__":
    main()
