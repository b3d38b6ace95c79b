"""Greedy and beam decoding: one prefill, then one token a step against a key-value cache; compiled once per shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxguard.batch import Batch
from jaxguard.models.architecture import Parameters, merge
from jaxguard.models.attention import Cache, visible
from jaxguard.models.vision_language import VisionLanguageModel

Extend = Callable[[Int[Array, " N"], Int[Array, ""], Cache], tuple[Float[Array, "N V"], Cache]]
"""(last token of each row, number of new tokens, cache) -> (logits of the next token, cache)."""

NEVER = -1e9
"""Score below that of any sequence; the value is that of `transformers`."""


def greedy(
    graph: nnx.GraphDef,
    parameters: Parameters,
    batch: Batch,
    *,
    new_tokens: int,
    end_token: int,
    stops: tuple[int, ...] = (),
) -> Int[Array, "B A"]:
    """Decode left-padded prompts greedily; finished rows are filled up with `end_token`.

    Pure: jit it with `graph`, `new_tokens`, `end_token` and `stops` static. Stops early when every row has ended.

    Args:
        graph: Graph definition of the model.
        parameters: All parameters of the model.
        batch: Prompts; only the first view is used.
        new_tokens: A, largest number of new tokens.
        end_token: Id of the token that ends an answer.
        stops: Ids of further tokens that end one.
    """
    logits, cache, extend = _begin(merge(graph, parameters), batch, new_tokens, copies=1)
    first = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    answer = jnp.full((len(batch.tokens), new_tokens), end_token, jnp.int32).at[:, 0].set(first)

    def unfinished(carry: Any) -> Bool[Array, ""]:
        count, answer, _ = carry
        last = jax.lax.dynamic_index_in_dim(answer, count - 1, axis=1, keepdims=False)
        return (count < new_tokens) & ~jnp.all(_is_end(last, end_token, stops))

    def step(carry: Any) -> Any:
        count, answer, cache = carry
        last = jax.lax.dynamic_index_in_dim(answer, count - 1, axis=1, keepdims=False)
        logits, cache = extend(last, count, cache)
        token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        token = jnp.where(_is_end(last, end_token, stops), end_token, token)
        return count + 1, jax.lax.dynamic_update_slice_in_dim(answer, token[:, None], count, axis=1), cache

    return jax.lax.while_loop(unfinished, step, (jnp.int32(1), answer, cache))[1]


@flax.struct.dataclass
class _Beams:
    """As many unfinished sequences per row as there are beams, and as many of the best finished ones; best first."""

    count: Int[Array, ""]
    """Number of new tokens of the unfinished sequences."""
    growing: Int[Array, "B beams A"]
    scores: Float[Array, "B beams"]
    """Sums of log-probabilities."""
    ended: Int[Array, "B beams A"]
    ended_scores: Float[Array, "B beams"]
    """Means of log-probabilities; `NEVER` for empty places."""
    open: Bool[Array, "B 1"]
    """True if an unfinished sequence may still beat the worst finished one."""
    cache: tuple[Float[Array, "L _ S G K"], Float[Array, "L _ S G K"]]
    """Keys and values; the rows are those of all sequences."""


def beam(
    graph: nnx.GraphDef,
    parameters: Parameters,
    batch: Batch,
    *,
    new_tokens: int,
    end_token: int,
    beams: int,
    stops: tuple[int, ...] = (),
) -> Int[Array, "B A"]:
    """Decode with beam search: the continuation of the highest mean log-probability found. Arguments as `greedy`.

    Equivalent to `transformers.generate` with `num_beams` and its other defaults (length penalty 1, no early
    stopping).
    """
    rows = len(batch.tokens)
    kept = max(2, 1 + len({end_token, *stops})) * beams  # so that as many that have not ended remain
    logits, cache, extend = _begin(merge(graph, parameters), batch, new_tokens, copies=beams)

    def grow(state: _Beams, logits: Float[Array, "N V"]) -> _Beams:
        size = logits.shape[-1]
        sums = jax.nn.log_softmax(logits).reshape(rows, beams, size) + state.scores[..., None]
        sums, chosen = jax.lax.top_k(sums.reshape(rows, beams * size), kept)
        parents, tokens = chosen // size, chosen % size
        place = jnp.arange(new_tokens)[None, None] == state.count
        candidates = jnp.where(place, tokens[..., None], _take(state.growing, parents))
        last = state.count + 1 >= new_tokens
        ends = _is_end(tokens, end_token, stops) | last

        going, order = jax.lax.top_k(sums + jnp.where(ends, NEVER, 0.0), beams)
        length = (state.count + 1).astype(jnp.float32)
        final = ends & (jnp.arange(kept) < beams)[None]
        means = sums / length + jnp.where(state.open & final, 0.0, NEVER)
        means, best = jax.lax.top_k(jnp.concatenate([state.ended_scores, means], axis=1), beams)
        ended = _take(jnp.concatenate([state.ended, candidates], axis=1), best)

        some_missing = jnp.any(means <= NEVER / 2, axis=1, keepdims=True)
        worst = jnp.where(some_missing, NEVER, means[:, -1:])
        heads = (_take(parents, order) + jnp.arange(rows)[:, None] * beams).reshape(-1)
        return _Beams(
            count=state.count + 1,
            growing=_take(candidates, order),
            scores=going,
            ended=ended,
            ended_scores=means,
            open=state.open & (going[:, :1] / length > worst) & ~last,
            cache=jax.tree.map(lambda part: part[:, heads], state.cache),
        )

    empty = jnp.full((rows, beams, new_tokens), end_token, jnp.int32)
    alone = jnp.where(jnp.arange(beams)[None] == 0, 0.0, jnp.full((rows, beams), NEVER))
    nothing = jnp.full((rows, beams), NEVER)
    state = _Beams(jnp.int32(0), empty, alone, empty, nothing, jnp.ones((rows, 1), bool), cache)

    def step(state: _Beams) -> _Beams:
        last = jax.lax.dynamic_index_in_dim(state.growing, state.count - 1, axis=2, keepdims=False)
        logits, cache = extend(last.reshape(-1), state.count, state.cache)
        return grow(dataclasses.replace(state, cache=cache), logits)

    return jax.lax.while_loop(lambda state: jnp.any(state.open), step, grow(state, logits)).ended[:, 0]


def _is_end(tokens: Int[Array, "*N"], end_token: int, stops: tuple[int, ...]) -> Bool[Array, "*N"]:
    return jnp.isin(tokens, jnp.array([end_token, *stops], tokens.dtype))


def _take(values: Array, order: Int[Array, "B beams"]) -> Array:
    return jnp.take_along_axis(values, order.reshape(*order.shape, *[1] * (values.ndim - 2)), axis=1)


def _begin(
    model: VisionLanguageModel, batch: Batch, new_tokens: int, *, copies: int
) -> tuple[Float[Array, "N V"], Cache, Extend]:
    """Prefill the prompts; repeat every row `copies` times in logits, cache and `Extend`."""
    length = batch.tokens.shape[1]
    tokens, positions, segments, images = map(
        jnp.asarray, (batch.tokens, batch.positions, batch.segments, batch.images)
    )
    x, context = model.embed_inputs(tokens, segments, images[:, 0])
    mask = model.attention_mask(tokens, segments)
    hidden, cache = model.decode(x, positions, mask, context, keep_cache=True)
    logits = model.language.logits(hidden[:, -1])
    cache = jax.tree.map(lambda part: jnp.pad(part, ((0, 0), (0, 0), (0, new_tokens), (0, 0), (0, 0))), cache)
    prompt = visible(jnp.ones((len(tokens), 1), jnp.int32), segments)

    def repeat(values: Any, axis: int) -> Any:
        return values if copies == 1 else jax.tree.map(lambda part: jnp.repeat(part, copies, axis=axis), values)

    prompt, end, ahead = repeat((prompt, positions[:, -1:], model.next_context(context)), 0)

    def extend(last: Int[Array, " N"], count: Int[Array, ""], cache: Cache) -> tuple[Float[Array, "N V"], Cache]:
        own = jnp.broadcast_to(jnp.arange(new_tokens) < count, (len(last), 1, new_tokens))
        hidden, grown = model.decode(
            model.language.embed(last[:, None], model.dtype),
            end + count,
            jnp.concatenate([prompt, own], axis=-1),
            ahead,
            cache,
            length + count - 1,
        )
        assert grown is not None
        return model.language.logits(hidden[:, -1]), grown

    assert cache is not None
    return repeat(logits, 0), repeat(cache, 1), extend
