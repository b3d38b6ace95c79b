"""Attention, and the masks that say which token sees which."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

Entry = tuple[Float[Array, "B S K D"], Float[Array, "B S K D"]]
"""Keys and values of one layer."""

Cache = tuple[Float[Array, "L B S K D"], Float[Array, "L B S K D"]]
"""Keys and values of every layer."""


def attention(
    query: Float[Array, "B T H D"],
    key: Float[Array, "B S K D"],
    value: Float[Array, "B S K D"],
    mask: Bool[Array, "B T S"] | None,
) -> Float[Array, "B T H D"]:
    """Scaled dot-product attention with a float32 softmax; H is a multiple of K (grouped queries).

    A query row that may see nothing (padding) attends evenly: finite, and never read.
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
    cache: Entry | None, key: Float[Array, "B T K D"], value: Float[Array, "B T K D"], column: Int[Array, ""] | int
) -> Entry:
    """What a layer attends to: its new keys and values alone, or all that its cache holds with these at `column`."""
    if cache is None:
        return key, value
    return (
        jax.lax.dynamic_update_slice_in_dim(cache[0], key, column, axis=1),
        jax.lax.dynamic_update_slice_in_dim(cache[1], value, column, axis=1),
    )


def visible(
    query_segments: Int[Array | np.ndarray, "B T"], key_segments: Int[Array | np.ndarray, "B S"]
) -> Bool[Array, "B T S"]:
    """Who may see whom apart from order: one's own segment and the shared prefix (1); padding (0) is seen by none."""
    query, key = query_segments[:, :, None], key_segments[:, None, :]
    return jnp.logical_and(key > 0, (key == query) | (key == 1))


def causal_mask(segments: Int[Array | np.ndarray, "B T"]) -> Bool[Array, "B T T"]:
    """The mask of a decoder over whole rows (`Batch.segments`)."""
    length = segments.shape[1]
    order = jnp.tril(jnp.ones((length, length), bool))
    return jnp.logical_and(visible(segments, segments), order[None])
