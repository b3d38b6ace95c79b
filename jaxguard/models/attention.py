"""Attention, and the masks that decide which token attends to which."""

from __future__ import annotations

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxguard.models import flash, placement

Entry = tuple[Float[Array, "B S G K"], Float[Array, "B S G K"]]
"""Keys and values of one layer."""

Cache = tuple[Float[Array, "L B S G K"], Float[Array, "L B S G K"]]
"""Keys and values of every layer."""


@flax.struct.dataclass
class Causal:
    """Causal mask of rows that are not packed and whose padding is on the right."""

    dense: Bool[Array, "B T T"]
    """The same mask as an array; no token attends to padding."""


Mask = Bool[Array, "B T S"] | Causal
Masks = Mask | tuple[Bool[Array, "_ _ _"] | Causal, ...] | None
"""A tuple holds one mask for each part that `pack` joined; parts do not attend to each other. None: all attend to
all."""


def attention(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S G K"],
    value: Float[Array, "B S G K"],
    mask: Masks,
) -> Float[Array, "B T H K"]:
    """Compute scaled dot-product attention with a float32 softmax; H is a multiple of G (grouped queries).

    Uses cuDNN on GPUs and splash attention on TPUs where the inputs allow it (`flash.choose`), and `reference`
    otherwise. A query that may attend to nothing (padding) gives finite values that are never used.
    """
    if isinstance(mask, tuple):
        shapes = [_dense(block).shape[:2] for block in mask]
        parts = zip(*(unpack(x, shapes) for x in (query, key, value)), mask, strict=True)
        return pack([attention(*part) for part in parts], query.shape[0])
    causal = isinstance(mask, Causal)
    kernel = flash.choose(query, key, placement.platform()) if causal or mask is None else None
    if kernel is not None:
        return kernel(query, key, value, causal=causal)
    return reference(query, key, value, None if mask is None else _dense(mask))


def reference(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S G K"],
    value: Float[Array, "B S G K"],
    mask: Bool[Array, "B T S"] | None,
) -> Float[Array, "B T H K"]:
    """Compute attention with all scores in memory: the reference implementation.

    A query that may attend to nothing attends to all keys equally.
    """
    batch, length, heads, depth = query.shape
    groups = key.shape[2]
    query = query.reshape(batch, length, groups, heads // groups, depth)
    scores = jnp.einsum("btkgd,bskd->bkgts", query, key, preferred_element_type=jnp.float32) * depth**-0.5
    if mask is not None:
        scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bkgts,bskd->btkgd", weights, value).reshape(batch, length, heads, depth)


def remembered(
    cache: Entry | None, key: Float[Array, "B T G K"], value: Float[Array, "B T G K"], column: Int[Array, ""] | int
) -> Entry:
    """Return the keys and values that a layer attends to: the new ones, or its cache with the new ones at `column`."""
    if cache is None:
        return key, value
    return (
        jax.lax.dynamic_update_slice_in_dim(cache[0], key, column, axis=1),
        jax.lax.dynamic_update_slice_in_dim(cache[1], value, column, axis=1),
    )


def pack(parts: Sequence[Array], rows: int) -> Array:
    """Join arrays [B1, T1, ...], [B2, T2, ...] of whole rows to one [rows, B1 T1 / rows + B2 T2 / rows, ...].

    `rows` divides every B. Neighbouring rows stay together, so that no row changes device if the first axis is sharded.
    """
    return jnp.concatenate([part.reshape(rows, -1, *part.shape[2:]) for part in parts], axis=1)


def unpack(packed: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Split what `pack` joined, given the first two dimensions of each part."""
    rows = packed.shape[0]
    ends = np.cumsum([batch * length // rows for batch, length in shapes])
    parts = jnp.split(packed, ends[:-1], axis=1)
    return [part.reshape(*shape, *packed.shape[2:]) for part, shape in zip(parts, shapes, strict=True)]


def visible(
    query_segments: Int[Array | np.ndarray, "B T"], key_segments: Int[Array | np.ndarray, "B S"]
) -> Bool[Array, "B T S"]:
    """Return which keys a query may attend to, order aside: its own segment and the prefix (1), not padding (0)."""
    query, key = query_segments[:, :, None], key_segments[:, None, :]
    return jnp.logical_and(key > 0, (key == query) | (key == 1))


def causal_mask(segments: Int[Array | np.ndarray, "B T"], *, right_padded: bool = False) -> Mask:
    """Build the causal mask of whole rows; both arguments are fields of `Batch`."""
    length = segments.shape[1]
    order = jnp.tril(jnp.ones((length, length), bool))
    dense = jnp.logical_and(visible(segments, segments), order[None])
    return Causal(dense) if right_padded else dense


def _dense(mask: Mask) -> Bool[Array, "B T S"]:
    return mask.dense if isinstance(mask, Causal) else mask
