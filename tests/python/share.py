"""What one configuration renders from a cache that another has filled, and from its own:
`share.py FOLDER` prints, for each engine, the two texts as JSON. The second configuration escapes."""

import json
import sys
from pathlib import Path

FOLDER = Path(sys.argv[1])
TEMPLATES = FOLDER / "templates"


def kida(cache, escapes):
    from kida import Environment, FileSystemLoader
    from kida.bytecode_cache import BytecodeCache

    env = Environment(
        loader=FileSystemLoader(str(TEMPLATES)),
        bytecode_cache=BytecodeCache(cache),
        autoescape=escapes,
    )
    return env.get_template("kida.html").render(name="<b>")


def jinja2(cache, escapes):
    from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader

    cache.mkdir(parents=True, exist_ok=True)
    env = Environment(
        loader=FileSystemLoader(str(TEMPLATES)),
        bytecode_cache=FileSystemBytecodeCache(str(cache)),
        autoescape=escapes,
    )
    return env.get_template("jinja2.html").render(name="<b>")


def mako(cache, escapes):
    from mako.lookup import TemplateLookup

    lookup = TemplateLookup(
        [str(TEMPLATES)], module_directory=str(cache), default_filters=["h"] if escapes else ["str"]
    )
    return lookup.get_template("mako.html").render(name="<b>")


TEMPLATES.mkdir()
for name in ("kida", "jinja2"):
    (TEMPLATES / f"{name}.html").write_text("Hi {{ name }}")
(TEMPLATES / "mako.html").write_text("Hi ${name}")
answers = {}
for render in (kida, jinja2, mako):
    name = render.__name__
    assert render(FOLDER / name / "shared", False) == "Hi <b>", name
    answers[name] = [render(FOLDER / name / "shared", True), render(FOLDER / name / "own", True)]
print(json.dumps(answers))
