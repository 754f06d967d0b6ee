"""A package: its bytecode lies in a folder of its own."""

from harbour.quay.berth import LENGTHS


def render() -> str:
    return f"{sum(LENGTHS)} m of quay"
