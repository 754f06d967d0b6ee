"""A module whose name is not ASCII, and which imports another."""

from lights import Light


def render() -> str:
    return f"Fährzeit: {Light('occulting')}"
