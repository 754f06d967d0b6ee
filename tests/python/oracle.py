"""Answers questions about the real interpreter and the real engine, for the differential tests.

Reads requests from standard input and writes answers to standard output, one for one. Both are
framed: a 32-bit little-endian length, then that many bytes. A request is two frames, a JSON object with
a "do" and its arguments, and a payload of bytes, often empty. An answer is one frame of JSON;
{"error": ...} if the question could not be answered at all.
"""

from __future__ import annotations

import gc
import io
import json
import marshal
import os
import pickle
import resource
import struct
import sys
import time
from pathlib import Path
from types import CodeType, FunctionType

# What one damaged stream may allocate: it can ask for 16 GB of nothing.
ADDRESS_SPACE = 384 << 20
# Seconds of processor time for one batch of streams.
PROCESSOR_TIME = 60


def tohex(data):
    return None if data is None else data.hex()


def unhex(text):
    return None if text is None else bytes.fromhex(text)


# --- marshal and pickle -----------------------------------------------------------------------


def split(payload):
    """The streams of a payload: each a 32-bit little-endian length and its bytes."""
    streams, at = [], 0
    while at < len(payload):
        (size,) = struct.unpack_from("<I", payload, at)
        streams.append(payload[at + 4 : at + 4 + size])
        at += 4 + size
    return streams


def judge_marshal(stream):
    """c: a code object; o: another object; r: rejected."""
    try:
        value = marshal.loads(stream)
    except Exception:
        return b"r"
    return b"c" if isinstance(value, CodeType) else b"o"


class HarmlessUnpickler(pickle.Unpickler):
    """Makes only what the pickles of do_pickles name, so that a damaged one can do no harm."""

    BUILTINS = {"bytearray", "complex", "frozenset", "object", "range", "set", "slice", "xrange"}
    NAMES = {
        ("_codecs", "encode"),
        ("copy_reg", "_reconstructor"),
        ("copyreg", "_reconstructor"),
        ("pathlib", "PosixPath"),
        ("pathlib._local", "PosixPath"),
        ("time", "struct_time"),
    }

    def find_class(self, module, name):
        known = (
            (module, name) in self.NAMES
            or (module in {"__builtin__", "builtins"} and name in self.BUILTINS)
            or module.startswith("kida.nodes.")
        )
        if not known:
            raise pickle.UnpicklingError
        return super().find_class(module, name)


def judge_pickle(stream):
    """o: an object; r: rejected."""
    try:
        HarmlessUnpickler(io.BytesIO(stream)).load()
    except Exception:
        return b"r"
    return b"o"


def judge_all(streams, judge):
    """A letter for each stream; x where the interpreter died of it.

    A child judges, one after another, and tells each verdict at once. Where it dies, the next child
    goes on behind.
    """
    verdicts = bytearray()
    while len(verdicts) < len(streams):
        ear, mouth = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(ear)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_TIME, PROCESSOR_TIME))
                resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
                gc.disable()
                for stream in streams[len(verdicts) :]:
                    os.write(mouth, judge(stream))
            finally:
                os._exit(0)
        os.close(mouth)
        with os.fdopen(ear, "rb") as pipe:
            verdicts += pipe.read()
        os.waitpid(child, 0)
        if len(verdicts) < len(streams):
            verdicts += b"x"
    return verdicts.decode()


def do_marshal(_, payload):
    return {"verdicts": judge_all(split(payload), judge_marshal)}


def do_pickle(_, payload):
    return {"verdicts": judge_all(split(payload), judge_pickle)}


def do_pickles(_, __):
    """Real pickles of every protocol, of the kinds of objects that entries hold."""
    shared = ["x" * 300, 1 << 70, -1, 1.5, None, True, b"b" * 300, {"k": ()}, {1, 2}, frozenset({3})]
    shared.append(shared)
    values = [
        None,
        [1, 2, 300, 70000, -5, 1 << 40, 1 << 3000],
        shared,
        {"a": [1, {"b": (1, 2, 3, 4)}], "ü": "\u20ac\ud800"},
        Path("a/b"),
        time.struct_time(range(9)),
        [bytearray(b"abc"), complex(1, 2), range(3), slice(1, 2)],
        "long" * 20000,
        [[i, str(i)] for i in range(1000)],
        ast_of("{% for x in y %}{{ x | upper }}{% else %}-{% endfor %}"),
    ]
    return {"pickles": [tohex(pickle.dumps(value, protocol)) for value in values for protocol in range(6)]}


def do_streams(_, __):
    """Real marshal streams: the code objects of templates and of the standard library, and plain values."""
    import argparse
    import ast
    import asyncio.tasks
    import dataclasses
    import inspect
    import textwrap
    import typing

    def f(a, /, b, *c, d=1, **e):
        def g(x):
            return x, a, b, (1, ("k", 2.5, 1j), b"x", ...), {1, 2} & {"u", "ü"}

        return [g(i) for i in c if i in {"p", "q"}]

    async def h(x):
        async for y in x:
            yield await y

    codes = [f.__code__, h.__code__, compile("", "<empty>", "exec"), compile("1+1", "x", "eval")]
    for module in (ast, textwrap, dataclasses, inspect, typing, argparse, asyncio.tasks):
        functions = [v.__code__ for v in vars(module).values() if isinstance(v, FunctionType)]
        codes += sorted(functions, key=lambda code: len(code.co_code))[-3:]
    codes += [code_of(source) for source in ("", "{{ a }}", "{% for x in y %}{{ x }}{% endfor %}")]
    values = [
        None,
        [1, -1, 1 << 40, -(1 << 100), 1.5, float("nan"), 1j, True, ..., StopIteration],
        ("a", "ä", "€", "😀", "\ud800", "x" * 300, b"", b"bytes"),
        {"k": [1, (2, 3)], (1, "t"): {4, 5}, frozenset({6}): None},
        [[[[]]], (((),),), set(), frozenset()],
    ]
    streams = [marshal.dumps(code) for code in codes]
    streams += [marshal.dumps(value, version) for value in values for version in range(5)]
    if sys.version_info >= (3, 14):
        streams.append(marshal.dumps([slice(1, 2, None), (slice("a", None),)]))
    return {"streams": [tohex(stream) for stream in streams]}


def description(code):
    return {
        "name": code.co_name,
        "qualname": code.co_qualname,
        "filename": code.co_filename,
        "first_line": code.co_firstlineno,
        "arg_count": code.co_argcount,
        "positional_only_arg_count": code.co_posonlyargcount,
        "keyword_only_arg_count": code.co_kwonlyargcount,
        "stack_size": code.co_stacksize,
        "flags": code.co_flags,
        "code_len": len(code.co_code),
        "names": code.co_names,
        "locals": code.co_varnames,
        "cells": code.co_cellvars,
        "free": code.co_freevars,
        "functions": [description(c) for c in code.co_consts if isinstance(c, CodeType)],
    }


def do_describe(_, payload):
    """What the interpreter knows of code objects."""
    return {"descriptions": [description(marshal.loads(stream)) for stream in split(payload)]}


# --- the engine -------------------------------------------------------------------------------


def environment(templates, cache=False, **options):
    from kida import DictLoader, Environment

    return Environment(loader=DictLoader(templates), bytecode_cache=cache, **options)


def ast_of(source):
    return environment({"t": source}).get_template("t")._optimized_ast


def code_of(source):
    return environment({"t": source}).get_template("t")._code


class Recorder:
    """Stands for a module: keeps what its dumps returns."""

    def __init__(self, module):
        self.module = module
        self.dumped = []

    def __getattr__(self, name):
        return getattr(self.module, name)

    def dumps(self, *args, **kwargs):
        data = self.module.dumps(*args, **kwargs)
        self.dumped.append(data)
        return data


def cache_of(request):
    from kida.bytecode_cache import BytecodeCache

    return BytecodeCache(Path(os.fsdecode(unhex(request["dir"]))))


def do_version(_, __):
    from kida import bytecode_cache

    return {"tag": bytecode_cache._CACHE_ABI_TAG, "python": bytecode_cache._PY_VERSION_TAG}


def do_compile(request, _):
    """Has the engine compile templates into a cache, and tells what it serialized for each."""
    from kida import bytecode_cache
    from kida.exceptions import TemplateError

    cache = cache_of(request)
    stored = []
    real_set = cache.set

    def recording_set(name, source_hash, code, *, context_hash=None, ast=None, precomputed=None):
        marshalled, pickled = Recorder(marshal), Recorder(pickle)
        bytecode_cache.marshal, bytecode_cache.pickle = marshalled, pickled
        try:
            real_set(name, source_hash, code, context_hash=context_hash, ast=ast, precomputed=precomputed)
        finally:
            bytecode_cache.marshal, bytecode_cache.pickle = marshal, pickle
        pickles = list(pickled.dumped)
        stored.append(
            {
                "name": name,
                "source_hash": source_hash,
                "context_hash": context_hash,
                "code": tohex(marshalled.dumped[0]),
                "precomputed": tohex(pickles.pop(0) if precomputed else None),
                "ast": tohex(pickles.pop(0) if ast is not None else None),
                "file": os.path.basename(cache._make_path(name, source_hash, context_hash)),
            }
        )

    cache.set = recording_set
    for group in request["groups"]:
        env = environment(
            group["templates"],
            cache,
            preserve_ast=group.get("preserve_ast", True),
            static_context=group.get("static_context"),
        )
        for name in group["templates"]:
            try:
                env.get_template(name)
            except TemplateError:
                if not group.get("lenient"):
                    raise
    return {"stored": stored}


def do_get(request, _):
    """Has the engine load an entry, and compares its parts with the expected serialized ones."""
    code, ast, precomputed = cache_of(request).get(
        request["name"], request["source_hash"], context_hash=request.get("context_hash")
    )
    answer = {"hit": code is not None, "ast": ast is not None, "precomputed": precomputed is not None}
    if code is not None:
        expected_code = marshal.loads(unhex(request["code"]))
        expected_ast = request.get("expected_ast")
        expected_precomputed = request.get("expected_precomputed")
        answer["same"] = (
            code == expected_code
            and (ast is None) == (expected_ast is None)
            and (ast is None or ast == pickle.loads(unhex(expected_ast)))
            and (precomputed is None) == (expected_precomputed is None)
            and (precomputed is None or repr(precomputed) == repr(pickle.loads(unhex(expected_precomputed))))
        )
    return answer


def do_get_parts(request, _):
    """Has the engine load an entry, and tells which parts it found; errors it does not catch too."""
    try:
        code, ast, precomputed = cache_of(request).get(
            request["name"], request["source_hash"], context_hash=request.get("context_hash")
        )
    except Exception as error:
        return {"raised": type(error).__name__}
    return {
        "code": code is not None,
        "ast": ast is not None,
        "precomputed": precomputed is not None,
    }


def do_path(request, _):
    """File names of entries; null where the engine refuses the template's name."""
    from kida.bytecode_cache import BytecodeCache
    from kida.exceptions import TemplateNotFoundError

    cache = BytecodeCache.__new__(BytecodeCache)
    cache._dir, cache._pattern = Path("/d"), request["pattern"]
    names = []
    for name, source_hash, context_hash in request["names"]:
        try:
            names.append(str(cache._make_path(name, source_hash, context_hash))[len("/d/") :])
        except TemplateNotFoundError:
            names.append(None)
    return {"names": names}


def do_hash(request, _):
    from kida.bytecode_cache import hash_source

    return {"hashes": [hash_source(source) for source in request["sources"]]}


def do_hash_file(request, _):
    """The hash of a template that the engine's own loader reads from a file."""
    from kida import FileSystemLoader
    from kida.bytecode_cache import hash_source

    path = Path(os.fsdecode(unhex(request["file"])))
    try:
        source, _ = FileSystemLoader(path.parent).get_source(path.name)
    except UnicodeDecodeError:
        return {"hash": None}
    return {"hash": hash_source(source)}


def do_stats(request, _):
    return cache_of(request).stats()


def do_clear(request, _):
    return {"removed": cache_of(request).clear(request["current_version_only"])}


def do_cleanup(request, _):
    return {"removed": cache_of(request).cleanup(request["max_age_days"])}


def read_frame(stream):
    head = stream.read(4)
    if len(head) < 4:
        return None
    (size,) = struct.unpack("<I", head)
    return stream.read(size)


def main():
    # Unknown words on standard output would break the framing.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.setrecursionlimit(20000)
    while (head := read_frame(sys.stdin.buffer)) is not None:
        request = json.loads(head)
        payload = read_frame(sys.stdin.buffer)
        try:
            answer = globals()["do_" + request["do"]](request, payload)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        data = json.dumps(answer).encode()
        answers.write(struct.pack("<I", len(data)) + data)
        answers.flush()


if __name__ == "__main__":
    main()
