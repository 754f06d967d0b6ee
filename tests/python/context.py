"""What the templates of tests/templates are rendered with: the same on every run and machine.

STATIC is also handed to the compiler, where static evaluation is tried; as it is a part of the
context, every template renders alike with and without it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

STATIC: dict[str, Any] = {
    "site": {
        "title": "The Lighthouse Almanac",
        "base_url": "https://almanac.example",
        "language": "en",
        "debug": False,
        "year": 1887,
        "nav": [
            {"title": "Home", "url": "/"},
            {"title": "Lights", "url": "/lights/"},
            {"title": "Tides & currents", "url": "/tides/"},
            {"title": "Überfahrten", "url": "/überfahrten/"},
        ],
        "units": {"length": "fathom", "speed": "knot", "pressure": "inHg"},
        "regions": ("north", "east", "south", "west"),
    },
    "features": ["search", "comments"],
    "limit": 3,
}


@dataclass(frozen=True)
class Keeper:
    """Attributes, a method and a property: what a template meets on an object."""

    name: str
    station: str
    years: int
    languages: list[str] = field(default_factory=list)

    @property
    def senior(self) -> bool:
        return self.years >= 10

    def greeting(self, salute: str = "Ahoy") -> str:
        return f"{salute}, {self.name}!"


KEEPERS = [
    Keeper("Ada Nilsen", "Skerry Point", 12, ["nb", "en"]),
    Keeper("Tomás O'Hara", "Black Rock <East>", 3, ["ga", "en", "es"]),
    Keeper("Ōta Haruko", "Cape Ōma", 27, ["ja"]),
    Keeper("Bjørn & Søn", "Skerry Point", 10, []),
]


def values() -> dict[str, Any]:
    """A fresh context: a template may change the lists and dictionaries in it."""
    return {
        **STATIC,
        "page": {
            "title": "Lights & <Shadows>",
            "kind": "article",
            "draft": False,
            "tags": ["sea", "stone", "storm"],
            "body": "<p>Trusted <em>markup</em>.</p>",
            "author": {"name": "Inspector Grey", "email": None},
            "views": 1234567,
            "score": 0.8125,
        },
        "user": {"name": "Mallory <script>", "roles": ["reader", "keeper"], "admin": False},
        "anonymous": None,
        "keepers": list(KEEPERS),
        "readings": [29.92, 29.4, 30.11, 28.77, 29.05],
        "log": [
            {"day": day, "wind": ("calm", "breeze", "gale")[day % 3], "force": day % 12, "ok": day % 4 > 0}
            for day in range(1, 15)
        ],
        "table": {"amber": 3, "cobalt": 1, "violet": 2},
        "matrix": [[row * column for column in range(1, 5)] for row in range(1, 4)],
        "tree": [
            {"name": "tower", "children": [{"name": "lamp", "children": []}, {"name": "stairs", "children": []}]},
            {"name": "house", "children": [{"name": "kitchen", "children": [{"name": "stove", "children": []}]}]},
        ],
        "count": 3,
        "text": "  A lamp is lit at dusk,\n  and put out at dawn.  ",
        "long_text": "The keeper wrote the log every evening. " * 12,
        "none": None,
        "empty_list": [],
        "partial_name": "partials/footer.html",
        "greek": "Φάρος της Αλεξάνδρειας",
        "emoji": "🗼🌊",
        "rtl": "منارة",
    }


def prepare(environment: Any) -> None:
    """Filters, tests and globals of an application's own."""
    environment.add_filter("knots", lambda value: f"{value} kn")
    environment.add_filter("shout", lambda value: f"{value}".upper() + "!")
    environment.add_test("stormy", lambda value: value == "gale")
    environment.add_global("asset", lambda path: f"/static/{path}?v=7")
