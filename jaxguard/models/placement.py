"""Where a model's arrays lie on a mesh: said once by whoever traces it, applied wherever layers hand them on.

Left to itself, XLA may split the hidden states' width over the axis that splits the weights, and then sums every matrix
product over all chips; held to their rows, it gathers the weights of one layer at a time, which are far fewer bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import jax
from jax.sharding import NamedSharding, PartitionSpec


@dataclass(frozen=True)
class Placement:
    """Shardings of arrays whose first axis are rows of a batch (or their views or images).

    Attributes:
        rows: of all of them.
        heads: of [B, T, H, D], where the heads divide over the devices that share a row.
    """

    rows: NamedSharding
    heads: NamedSharding

    def split(self, *heads: int) -> PartitionSpec:
        """Of arrays [B, T, H, D] with so many heads: over rows alone where one of them does not divide."""
        ways = self.heads.mesh.shape[self.heads.spec[-1]]
        return self.rows.spec if any(count % ways for count in heads) else self.heads.spec


_place: ContextVar[Placement | None] = ContextVar("place", default=None)


@contextmanager
def on(place: Placement) -> Iterator[None]:
    """Models that are traced inside lie there."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)


def current() -> Placement | None:
    """What `on` said."""
    return _place.get()


def platform() -> str:
    """For what kind of device a model is traced: "cpu", "gpu" or "tpu"."""
    place = _place.get()
    return jax.default_backend() if place is None else place.rows.mesh.devices.flat[0].platform


def rows(x: jax.Array) -> jax.Array:
    """An array whose first axis are rows, held to where rows lie."""
    place = _place.get()
    if place is None or place.rows.mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, place.rows)
