"""A plain module: constants, a function, a class."""

PERIODS = {"fixed": 0.0, "flashing": 5.0, "occulting": 12.5}


class Light:
    def __init__(self, kind: str) -> None:
        self.period = PERIODS[kind]

    def __str__(self) -> str:
        return f"{self.period:.1f} s"


def render() -> str:
    return ", ".join(f"{kind}: {Light(kind)}" for kind in PERIODS)
