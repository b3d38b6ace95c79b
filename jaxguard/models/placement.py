"""Placement of a model's arrays on a mesh: set once around tracing (`on`), applied between layers (`rows`).

Without constraints, XLA may split the hidden states' width over the axis that splits the weights, and then sums every
matmul over all devices. Constrained to rows, it gathers the weights of one layer at a time, which are far fewer bytes.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import jax
from jax.sharding import NamedSharding

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placement:
    """Shardings of arrays whose first axis is rows of a batch (or their views or images).

    Attributes:
        rows: sharding over rows alone.
        heads: sharding of [B, T, H, K] over rows and heads, for heads that divide over the devices that share a row.
    """

    rows: NamedSharding
    heads: NamedSharding

    def split(self, *heads: int) -> NamedSharding:
        """Return the sharding of arrays [B, T, H, K] with these numbers of heads: rows alone if one does not divide."""
        ways = self.heads.mesh.shape[self.heads.spec[-1]]
        if not any(count % ways for count in heads):
            return self.heads
        _warn(f"attention: {' and '.join(map(str, heads))} heads do not divide over {ways} devices; not split there")
        return self.rows


_place: ContextVar[Placement | None] = ContextVar("place", default=None)


@contextmanager
def on(place: Placement) -> Iterator[None]:
    """Set the placement of models traced inside the context."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)


def current() -> Placement | None:
    """Return the placement set by `on`; None outside of it."""
    return _place.get()


def platform() -> str:
    """Return the kind of device a model is traced for: "cpu", "gpu" or "tpu"."""
    place = _place.get()
    return jax.default_backend() if place is None else place.rows.mesh.devices.flat[0].platform


def rows(x: jax.Array) -> jax.Array:
    """Constrain an array whose first axis is rows to the sharding of rows."""
    place = _place.get()
    if place is None or place.rows.mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, place.rows)


@functools.cache
def _warn(message: str) -> None:
    log.warning(message)
