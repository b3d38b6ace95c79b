"""Tests that compile the same program share what XLA made of it: half of the tests' time is compilation.

Programs stay in memory: JAX's own compilation cache writes executables to disk and reads them back, which tests of
interruption would meet half-written.
"""

import time
from collections import OrderedDict
from typing import Any

from jax._src import cache_key, compiler, config

KEPT = 128
"""Number of executables that a process keeps."""
DEAR = 0.5
"""Seconds of compilation from which on one is kept."""


def install() -> None:
    """Let JAX compile equal programs once in this process."""
    compile_anew, kept = compiler.compile_or_get_cached, OrderedDict[str, Any]()

    def compile_once(*arguments: Any) -> Any:
        backend, computation, devices, options, callbacks, *_ = arguments
        if callbacks or config.compilation_cache_dir.value:
            return compile_anew(*arguments)
        key = cache_key.get(computation, devices, options, backend)
        if key not in kept:
            began = time.perf_counter()
            made = compile_anew(*arguments)
            if time.perf_counter() - began < DEAR:
                return made
            kept[key] = made
        kept.move_to_end(key)
        while len(kept) > KEPT:
            kept.popitem(last=False)
        return kept[key]

    compiler.compile_or_get_cached = compile_once  # type: ignore[assignment]
