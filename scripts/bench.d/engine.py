"""The engines' worker: does what real engines do with a cache directory, and says how long each call took.

Reads requests from standard input, a JSON object a line, and answers each with one line. Times are in
nanoseconds, one for each call.
"""

from __future__ import annotations

import gc
import hashlib
import json
import marshal
import sys
import tempfile
import time
from pathlib import Path

from jinja2 import FileSystemBytecodeCache
from jinja2.bccache import Bucket
from kida import DictLoader, Environment
from kida.bytecode_cache import BytecodeCache

ENTRY_BYTES = 10_000  # a code object's marshal stream, about that of a page of 150 lines
PASSES = 5  # over all entries, for the repeated hits and misses


def code_of_size(size: int):
    """A code object as kida compiles it; its marshal stream has `size` bytes and at most a line's more."""
    low, high = 1, 1024
    while low < high:
        lines = (low + high) // 2
        if len(marshal.dumps(compiled(lines))) < size:
            low = lines + 1
        else:
            high = lines
    return compiled(low)


def compiled(lines: int):
    source = "\n".join(
        f"{{% if user.level > {line} %}}<li class='row-{line}'>{{{{ items[{line}].title | upper }}}}</li>{{% end %}}"
        for line in range(lines)
    )
    return Environment(loader=DictLoader({"page.html": source})).get_template("page.html")._code


class Kida:
    """kida's own cache class. Entries have no AST: unpickling one takes longer than anything a filesystem does,
    and would hide it."""

    def __init__(self, dir: str, code) -> None:
        self.cache = BytecodeCache(Path(dir))
        self.code = code

    def key(self, tag: str, number: int):
        name = f"bench/{tag}/page{number}.html"
        return name, hashlib.sha256(name.encode()).hexdigest()

    def miss(self, key) -> bool:
        return self.cache.get(*key)[0] is None

    def hit(self, key) -> bool:
        return self.cache.get(*key)[0] is not None

    def store(self, key) -> bool:
        self.cache.set(*key, self.code)
        return True

    def path(self, key) -> Path:
        return self.cache._make_path(*key)


class Jinja2:
    """Jinja2's FileSystemBytecodeCache; a bucket is its unit of caching."""

    def __init__(self, dir: str, code) -> None:
        self.cache = FileSystemBytecodeCache(dir)
        self.environment = None  # only handed through
        self.code = code

    def key(self, tag: str, number: int):
        name = f"bench/{tag}/page{number}.html"
        digest = hashlib.sha1(name.encode()).hexdigest()
        return digest, digest

    def bucket(self, key) -> Bucket:
        return Bucket(self.environment, *key)

    def miss(self, key) -> bool:
        bucket = self.bucket(key)
        self.cache.load_bytecode(bucket)
        return bucket.code is None

    def hit(self, key) -> bool:
        bucket = self.bucket(key)
        self.cache.load_bytecode(bucket)
        return bucket.code is not None

    def store(self, key) -> bool:
        bucket = self.bucket(key)
        bucket.code = self.code
        self.cache.dump_bytecode(bucket)
        return True

    def path(self, key) -> Path:
        return Path(self.cache._get_cache_filename(self.bucket(key)))


def timed(call, keys, passes: int = 1) -> list[int]:
    """How long `call` took for each key in turn. An answer that is not the expected one is an error: a cache
    that stores nothing is fast."""
    times = []
    clock = time.perf_counter_ns
    for _ in range(passes):
        for key in keys:
            began = clock()
            right = call(key)
            times.append(clock() - began)
            if not right:
                raise RuntimeError(f"{call.__qualname__} was not one for {key[0]}")
    return times


class Worker:
    """Answers the requests; each method whose name begins with do_ is one."""

    engines = {"kida": Kida, "jinja2": Jinja2}

    def __init__(self) -> None:
        self.code = code_of_size(ENTRY_BYTES)

    def engine(self, request):
        engine = self.engines[request.get("engine", "kida")](request["dir"], self.code)
        numbers = range(request["first"], request["first"] + request["count"])
        return engine, [engine.key(request["tag"], number) for number in numbers]

    def do_round(self, request):
        """Fresh names through an entry's life: missed, stored, read again and again, removed."""
        engine, keys = self.engine(request)
        answer = {
            "miss first": timed(engine.miss, keys),
            "miss repeated": timed(engine.miss, keys, PASSES),
            "store": timed(engine.store, keys),
            "hit first": timed(engine.hit, keys),
            "hit second": timed(engine.hit, keys),
            "hit third": timed(engine.hit, keys),
            "hit repeated": timed(engine.hit, keys, PASSES),
        }
        for key in keys:
            engine.path(key).unlink()
        return answer

    def do_store(self, request):
        engine, keys = self.engine(request)
        return {"times": timed(engine.store, keys)}

    def do_hit(self, request):
        engine, keys = self.engine(request)
        return {"times": timed(engine.hit, keys, request.get("passes", 1))}

    def do_miss(self, request):
        engine, keys = self.engine(request)
        return {"times": timed(engine.miss, keys, request.get("passes", 1))}

    def do_rush(self, request):
        """Hits for so many milliseconds: how many in that time."""
        engine, keys = self.engine(request)
        count = 0
        began = time.perf_counter()
        end = began + request["milliseconds"] / 1000
        while (now := time.perf_counter()) < end:
            timed(engine.hit, keys)
            count += len(keys)
        return {"operations": count, "seconds": now - began}

    def do_sample(self, request):
        """Writes an entry into a file: content for those who have no engine."""
        cache = Kida(request["dir"], self.code if request["whole"] else compiled(1))
        key = cache.key("sample", 0)
        cache.store(key)
        cache.path(key).rename(request["file"])
        return {}

    def do_glob(self, request):
        """How the engine itself finds its entries when it clears, cleans up or counts."""
        began = time.perf_counter_ns()
        found = len(list(Path(request["dir"]).glob("__kida_*.pyc")))
        return {"times": [time.perf_counter_ns() - began], "found": found}

    def warm_up(self) -> None:
        """Lets the interpreter specialize its bytecode before anything is measured."""
        with tempfile.TemporaryDirectory() as dir:
            for engine in self.engines:
                self.do_round({"engine": engine, "dir": dir, "tag": "warm", "first": 0, "count": 50})


def main() -> None:
    worker = Worker()
    worker.warm_up()
    # Its pauses would fall on whichever system's turn it is.
    gc.collect()
    gc.freeze()
    gc.disable()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, f"do_{request['do']}")(request)
        except Exception as error:  # the one who asks decides what comes of it
            answer = {"error": f"{type(error).__name__}: {error}"}
        gc.collect()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
