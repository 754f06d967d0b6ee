"""Compiles a part of the standard library into $FOLDER by PYTHONPYCACHEPREFIX, from several processes at
once, imports it in new processes, and writes to $RESULT a line for each module: it passed if it was
loaded from bytecode in $FOLDER."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

FOLDER, RESULT = Path(os.environ["FOLDER"]) / "prefix", Path(os.environ["RESULT"])
PACKAGES = [
    "asyncio",
    "collections",
    "concurrent",
    "ctypes",
    "email",
    "encodings",
    "html",
    "http",
    "importlib",
    "json",
    "logging",
    "multiprocessing",
    "sqlite3",
    "unittest",
    "urllib",
    "wsgiref",
    "xml",
    "zoneinfo",
]
IMPORT = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        module = importlib.import_module(name)
    except ImportError:
        continue
    # A frozen module has no bytecode file of its own.
    if module.__spec__.origin != "frozen" and module.__name__ == name:
        print(name, module.__spec__.cached)
"""
library = Path(sysconfig.get_path("stdlib"))
modules = []
for package in PACKAGES:
    for path in sorted((library / package).rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if "test" in parts or "tests" in parts or parts[-1] in ("__main__", "__init__", "_overlapped"):
            continue
        if not any(word in "".join(parts) for word in ("windows", "win32", "mbcs", "oem", "idle")):
            modules.append(".".join(parts))


def python(*arguments):
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(FOLDER)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.Popen(
        [sys.executable, "-s", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def imported():
    output, _ = python("-c", IMPORT, *modules).communicate()
    return dict(line.split(" ", 1) for line in output.splitlines())


# Four processes compile the same modules at once.
for process in [python("-c", IMPORT, *modules) for _ in range(4)]:
    process.communicate()
cold = imported()
stamps = {path: path.stat().st_mtime_ns for path in FOLDER.rglob("*.pyc")}
warm = imported()
written = {path for path in FOLDER.rglob("*") if path.is_file() and path.stat().st_mtime_ns != stamps.get(path)}
with RESULT.open("w") as result:
    for name in cold:
        cached = Path(warm.get(name, ""))
        passed = FOLDER in cached.parents and cached in stamps and cached not in written
        print("passed" if passed else "failed", name, file=result)
    # Nothing was compiled again, and nothing half-written is left.
    print("passed" if not written else "failed", "nothing-written-when-warm", file=result)
    left = [path for path in FOLDER.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    print("passed" if not left else "failed", "nothing-left", file=result)
