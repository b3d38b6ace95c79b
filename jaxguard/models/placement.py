"""Where hidden states lie on a mesh: said once by whoever traces a model, applied wherever layers hand them on.

Left to itself, XLA may split the hidden states' width over the axis that splits the weights, and then sums every matrix
product over all chips; held to their rows, it gathers the weights of one layer at a time, which are far fewer bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import jax

Tree = TypeVar("Tree")
_rows: ContextVar[jax.sharding.Sharding | None] = ContextVar("rows", default=None)


@contextmanager
def rows_on(sharding: jax.sharding.Sharding | None) -> Iterator[None]:
    """Inside, `rows` holds the first axis of arrays to this sharding; None leaves them to the compiler."""
    token = _rows.set(sharding)
    try:
        yield
    finally:
        _rows.reset(token)


def rows(x: jax.Array) -> jax.Array:
    """An array whose first axis are rows of a batch (or their views or images), held to where rows lie."""
    sharding = _rows.get()
    return x if sharding is None else jax.lax.with_sharding_constraint(x, sharding)
