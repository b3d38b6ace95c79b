"""Greedy decoding: one prefill, then one token a step against a key-value cache; compiled once per batch shape."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Int

from jaxguard.batch import Batch
from jaxguard.models.attention import causal_mask, visible
from jaxguard.models.families import Parameters, merge


def greedy(
    graph: nnx.GraphDef, parameters: Parameters, batch: Batch, *, new_tokens: int, end_token: int
) -> Int[Array, "B N"]:
    """The most likely continuation of each left-padded prompt, `end_token` from its end on.

    Pure, to be jitted with `graph`, `new_tokens` and `end_token` static. Stops early when every row has ended.

    Args:
        graph: the model.
        parameters: all of its parameters.
        batch: prompts; only the first view is read.
        new_tokens: N, tokens at most.
        end_token: id of the token that ends an answer.
    """
    model = merge(graph, parameters)
    rows, length = batch.tokens.shape
    x, sight = model.read(batch.tokens, batch.segments, batch.images[:, 0])
    hidden, cache = model.decode(x, batch.positions, causal_mask(batch.segments), sight, keep_cache=True)
    sight = model.ahead(sight)
    first = jnp.argmax(model.language.logits(hidden[:, -1]), axis=-1).astype(jnp.int32)
    cache = jax.tree.map(lambda part: jnp.pad(part, ((0, 0), (0, 0), (0, new_tokens), (0, 0), (0, 0))), cache)
    segments = jnp.pad(batch.segments, ((0, 0), (0, new_tokens)))
    answer = jnp.full((rows, new_tokens), end_token, jnp.int32).at[:, 0].set(first)

    def unfinished(carry: Any) -> Bool[Array, ""]:
        count, answer, _, _ = carry
        last = jax.lax.dynamic_index_in_dim(answer, count - 1, axis=1, keepdims=False)
        return (count < new_tokens) & jnp.any(last != end_token)

    def extend(carry: Any) -> Any:
        count, answer, segments, cache = carry
        column = length + count - 1
        last = jax.lax.dynamic_index_in_dim(answer, count - 1, axis=1)
        segments = jax.lax.dynamic_update_slice_in_dim(segments, jnp.ones((rows, 1), segments.dtype), column, axis=1)
        hidden, cache = model.decode(
            model.language.embed(last, model.dtype),
            batch.positions[:, -1:] + count,
            visible(jnp.ones((rows, 1), segments.dtype), segments),
            sight,
            cache,
            column,
        )
        token = jnp.argmax(model.language.logits(hidden[:, -1]), axis=-1).astype(jnp.int32)
        token = jnp.where(last[:, 0] == end_token, end_token, token)
        return count + 1, jax.lax.dynamic_update_slice_in_dim(answer, token[:, None], count, axis=1), segments, cache

    return jax.lax.while_loop(unfinished, extend, (jnp.int32(1), answer, segments, cache))[1]
