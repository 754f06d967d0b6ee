"""The processes that do what is measured: the engines' worker and the native client.

Both live for a whole run and are asked line by line, in JSON: what is measured never includes a start.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import host


class Worker:
    """A process that answers a line with a line."""

    def __init__(self, *command: str | Path) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C is for the one who asks: a worker ends with its input.
            start_new_session=True,
        )

    def ask(self, do: str, **arguments: Any) -> dict:
        """The answer; an error in it is raised."""
        request = {"do": do, **arguments}
        self.process.stdin.write(json.dumps(request, default=str) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise host.Failure(f"{self.process.args[-1]} ended while it was asked to {do}")
        answer = json.loads(line)
        if answer.get("error"):
            where = f" in {arguments['dir']}" if "dir" in arguments else ""
            raise host.Failure(f"{do} failed{where}: {answer['error']}")
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
