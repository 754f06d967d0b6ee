"""Makes entries with the real engines, edits their sources, and says of each entry whether the engine
would use it. `engines.py FOLDER SEED ROUNDS` prints a line of JSON: what each file is; then one for each
round: {path: fresh}. Between lines it waits for a line on its standard input. Nothing is written to
the cache after the first line.

Runs under CPython 3.11 to 3.14; kida needs 3.14.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import py_compile
import random
import sys
from pathlib import Path

FOLDER, SEED, ROUNDS = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
TEMPLATES, CACHE, MODULES = FOLDER / "templates", FOLDER / "cache", FOLDER / "modules"
TEXTS = {
    "base.html": "<p>{{ a }}</p>\n",
    "blog/post.html": "one\ntwo {{ a }}\n",
    "blog_post.html": "other\n{{ a }}\n",
    "windows.html": "one\r\ntwo {{ a }}\r\n",
    "grüße/€.html": "Grüße {{ a }} €\n",
    "a b/c:d.html": "{{ a }}\n",
    "x" * 60 + "/" + "y" * 60 + ".html": "{{ a }}",
}
entries = {}
fresh = {}


def add(path, engine, name, source, is_fresh, version):
    path = str(Path(path).relative_to(CACHE))
    assert path not in entries, path
    entries[path] = {
        "engine": engine,
        "name": name,
        "source": None if source is None else os.fsencode(source).hex(),
        "version": version,
    }
    fresh[path] = is_fresh


def only_new(before):
    """The one file that has come."""
    (path,) = files() - before
    return path


def files():
    return {path for path in CACHE.rglob("*") if path.is_file()}


def jinja2():
    import jinja2

    version = f"bc5-py{sys.version_info[0]}.{sys.version_info[1]}"

    def use(env, names):
        inner = env.loader
        if isinstance(inner, jinja2.PrefixLoader):
            inner = inner.mapping["shop"]
        for name in names:
            before = files()
            env.get_template(name)
            _source, filename, _ = env.loader.get_source(env, name)
            path = only_new(before)
            # A prefix loader hands its inner loader what is left of the name.
            name = name.removeprefix("shop/")

            def is_fresh(name=name, filename=filename):
                try:
                    now, _, _ = inner.get_source(env, name)
                except UnicodeDecodeError:
                    return False
                cache = env.bytecode_cache
                return cache.get_bucket(env, name, filename, now).code is not None

            add(path, "jinja2", name, filename, is_fresh, version)

    def env(folder, loader, *pattern):
        cache = CACHE / folder
        cache.mkdir(parents=True)
        return jinja2.Environment(loader=loader, bytecode_cache=jinja2.FileSystemBytecodeCache(str(cache), *pattern))

    loader = jinja2.FileSystemLoader(str(TEMPLATES))
    use(env("j", loader), TEXTS)
    use(env("j-pattern", loader, "shop-%s.bin"), TEXTS)
    use(env("j-prefix", jinja2.PrefixLoader({"shop": loader})), ["shop/" + name for name in TEXTS])
    use(env("j-dict", jinja2.DictLoader({"a.html": "{{ a }}"})), ["a.html"])
    for encoding in ("latin-1", "cp1251", "shift_jis", "utf-16", "utf-8-sig"):
        (TEMPLATES / encoding).mkdir()
        text = {"cp1251": "Привет", "shift_jis": "こんにちは"}.get(encoding, "Grüße")
        (TEMPLATES / encoding / "e.html").write_text(text + " {{ a }}\n", encoding=encoding)
        loader = jinja2.FileSystemLoader(str(TEMPLATES), encoding=encoding)
        use(env("j-" + encoding, loader), [encoding + "/e.html"])
    # A loader that does not translate line ends.
    (FOLDER / "package" / "templates").mkdir(parents=True)
    (FOLDER / "package" / "__init__.py").write_text("")
    for name in ("plain.html", "windows.html"):
        (FOLDER / "package" / "templates" / name).write_bytes(TEXTS.get(name, "{{ a }}").encode())
    sys.path.insert(0, str(FOLDER))
    use(env("j-package", jinja2.PackageLoader("package")), ["plain.html", "windows.html"])


def mako():
    from mako.lookup import TemplateLookup
    from mako.template import Template

    cache = CACHE / "mako"
    lookup = TemplateLookup([str(TEMPLATES)], module_directory=str(cache), input_encoding="utf-8")
    for name in TEXTS:
        before = files()
        template = lookup.get_template(name)
        path = only_new(before)

        def is_fresh(name=name, filename=template.filename, path=str(path)):
            written = []
            Template(
                uri=name,
                filename=filename,
                module_filename=path,
                input_encoding="utf-8",
                module_writer=lambda source, output: written.append(output),
            )
            return not written

        add(path, "mako", name, template.filename, is_fresh, "magic10")
    # Options that change the header's lines.
    lookup = TemplateLookup(
        [str(TEMPLATES)],
        module_directory=str(CACHE / "mako-options"),
        input_encoding="utf-8",
        future_imports=["annotations"],
        strict_undefined=True,
        default_filters=["h"],
        imports=["import os"],
    )
    before = files()
    template = lookup.get_template("base.html")
    add(only_new(before), "mako", "base.html", template.filename, None, "magic10")


def modules():
    from importlib.util import cache_from_source

    tag = sys.implementation.cache_tag
    modes = py_compile.PycInvalidationMode
    MODULES.mkdir()
    for mode in (modes.TIMESTAMP, modes.CHECKED_HASH, modes.UNCHECKED_HASH):
        for prefix, optimization in ((CACHE / "prefix", ""), (CACHE, 1), (CACHE / "prefix", 2)):
            source = MODULES / f"m_{mode.name.lower()}_{optimization}.py"
            source.write_text("x = 'ü'\n", encoding="utf-8")
            sys.pycache_prefix = str(prefix)
            path = cache_from_source(str(source), optimization=optimization)
            py_compile.compile(str(source), path, doraise=True, optimize=optimization or 0, invalidation_mode=mode)
            if optimization:
                version = f"{tag}.opt-{optimization}"
            else:
                version = tag

            def is_fresh(source=str(source), path=path):
                written = []

                class Loader(importlib.machinery.SourceFileLoader):
                    def set_data(self, output, *args, **kwargs):
                        written.append(output)

                import importlib._bootstrap_external as external

                real, external.cache_from_source = external.cache_from_source, lambda _: path
                sys.dont_write_bytecode = False
                try:
                    Loader("m", source).get_code("m")
                finally:
                    external.cache_from_source = real
                    sys.dont_write_bytecode = True
                return not written

            name = str(Path(path).parent.relative_to(CACHE) / source.stem)
            add(path, "importlib", name, str(source), is_fresh, version)


def kida():
    from kida import DictLoader, Environment, FileSystemLoader
    from kida.bytecode_cache import _CACHE_ABI_TAG, BytecodeCache, hash_source

    def use(folder, loader, names, **options):
        cache = BytecodeCache(CACHE / folder)
        env = Environment(loader=loader, bytecode_cache=cache, **options)
        for name in names:
            before = files()
            env.get_template(name)
            _source, filename = loader.get_source(name)
            path = only_new(before)

            def is_fresh(name=name):
                try:
                    now, _ = loader.get_source(name)
                except UnicodeDecodeError:
                    return False
                return cache.get(name, hash_source(now))[0] is not None

            shown = name if filename else name.replace("/", "_")
            add(path, "kida", shown, filename, is_fresh, _CACHE_ABI_TAG)

    names = [name for name in TEXTS if ":" not in name]
    use("kida", FileSystemLoader(str(TEMPLATES)), names, preserve_ast=False)
    use("kida-ast", FileSystemLoader(str(TEMPLATES)), names, preserve_ast=True)
    use("kida-dict", DictLoader({"a.html": "{{ a }}"}), ["a.html"])
    use("kida-latin", FileSystemLoader(str(TEMPLATES), encoding="latin-1"), ["latin-1/e.html"])


def edit(rng, paths):
    """One thing that happens to a source."""
    path = rng.choice(paths)
    stat = path.stat()
    content = path.read_bytes()
    kind = rng.randrange(8)
    if kind == 0:
        path.write_bytes(content + b"\n")
    elif kind == 1:
        path.write_bytes(content.replace(b"\r\n", b"\n"))
    elif kind == 2:
        path.write_bytes(content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    elif kind == 3:
        # The same size and time.
        path.write_bytes(content.swapcase())
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif kind == 4:
        os.utime(path, (stat.st_atime, stat.st_mtime + rng.choice([-5, -1, 1, 5])))
    elif kind == 5:
        # Fractions of the same second.
        os.utime(path, ns=(0, stat.st_mtime_ns // 10**9 * 10**9 + rng.choice([0, 1, 10**9 - 1, 10**9 // 2])))
    elif kind == 6:
        # As it was.
        path.write_bytes(originals[path][0])
        os.utime(path, ns=(0, originals[path][1]))
    else:
        path.write_bytes(content.removesuffix(b"\n"))


for name, text in TEXTS.items():
    (TEMPLATES / name).parent.mkdir(parents=True, exist_ok=True)
    (TEMPLATES / name).write_bytes(text.encode())
sys.dont_write_bytecode = True
CACHE.mkdir()
jinja2()
mako()
modules()
if sys.version_info >= (3, 14):
    kida()

sources = sorted(
    path
    for root in (TEMPLATES, MODULES, FOLDER / "package" / "templates")
    for path in root.rglob("*")
    if path.is_file()
)
originals = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sources}
print(json.dumps(entries), flush=True)
rng = random.Random(SEED)
for _ in range(ROUNDS):
    sys.stdin.readline()
    for _ in range(rng.randrange(12)):
        edit(rng, sources)
    print(json.dumps({path: ask() for path, ask in fresh.items() if ask}), flush=True)
