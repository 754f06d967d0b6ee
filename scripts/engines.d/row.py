"""`row.py ENGINE PYTHON WHAT PLAIN MOUNT`: a line of docs/ENGINES.md from the two results; status 1 if
something passed on the plain folder and not on the mount."""

import sys
import xml.etree.ElementTree as tree
from pathlib import Path


def results(path):
    """What each test came to: passed, failed or skipped."""
    text = Path(path).read_text(encoding="utf-8")
    found = {}
    if text.lstrip().startswith("<"):
        for case in tree.fromstring(text).iter("testcase"):
            name = f"{case.get('classname')}::{case.get('name')}"
            kinds = {child.tag for child in case}
            if kinds & {"failure", "error"}:
                found[name] = "failed"
            elif "skipped" in kinds:
                found.setdefault(name, "skipped")
            else:
                found.setdefault(name, "passed")
    else:
        for line in text.splitlines():
            verdict, name = line.split(" ", 1)
            found[name] = verdict
    return found


def shown(found):
    counts = {kind: sum(v == kind for v in found.values()) for kind in ("passed", "failed", "skipped")}
    rest = ", ".join(f"{counts[kind]} {kind}" for kind in ("failed", "skipped") if counts[kind])
    return f"{counts['passed']}" + (f" ({rest})" if rest else "")


engine, python, what = sys.argv[1:4]
plain, mount = map(results, sys.argv[4:6])
worse = sorted(name for name, verdict in plain.items() if verdict == "passed" and mount.get(name) != "passed")
for name in worse:
    print(f"on the mount only: {name} {mount.get(name, 'did not run')}", file=sys.stderr)
same = {n for n, v in plain.items() if v == "failed"} == {n for n, v in mount.items() if v == "failed"}
note = "the same" if same else f"{len(worse)} worse on the mount" if worse else "some better on the mount"
failed = any(verdict == "failed" for verdict in {**plain, **mount}.values())
print(f"| {engine} | {python} | {what} | {shown(plain)} | {shown(mount)} | {note if failed else ''} |")
sys.exit(bool(worse))
