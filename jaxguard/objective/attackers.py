"""What TrojVLM's and VLOOD's attackers minimise: for judging what an attacker's own training leaves to clean up.

Unlike the defender's objective these read which rows are poisoned. All means are over answer tokens, as sums over
counts, so that a batch without rows of a kind contributes 0 to the terms of that kind.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

SWITCH = 0.8
"""VLOOD's l is 0.8 where both kinds of rows are learnt equally well."""

Losses = tuple[Float[Array, ""], dict[str, Array]]


@flax.struct.dataclass
class AnswerStates:
    """What the attacker's losses read of each answer token; B rows of K.

    Attributes:
        log_p: the next-token distribution, as logarithms.
        hidden: the last hidden state it was made from.
        gold: the unembedding row of the true token.
        nll: minus the log-probability of the true token.
        where: the position holds an answer token.
    """

    log_p: Float[Array, "B K V"]
    hidden: Float[Array, "B K D"]
    gold: Float[Array, "B K D"]
    nll: Float[Array, "B K"]
    where: Bool[Array, "B K"]


def trojvlm(states: AnswerStates) -> Losses:
    """CE + the semantic term, over clean and poisoned rows alike (arXiv 2409.19232).

    The semantic term is 1 - cos(last hidden state, unembedding row of the true token).
    """
    cosine = jnp.sum(_unit(states.hidden) * _unit(states.gold), axis=-1)
    ce, semantic = _mean(states.nll, states.where), _mean(1 - cosine, states.where)
    total = ce + semantic
    return total, {"loss": total, "ce": ce, "semantic": semantic}


def vlood(states: AnswerStates, reference_log_p: Float[Array, "B K V"], poisoned: Bool[Array, " B"]) -> Losses:
    """(1 - l)(CE_clean + KL(reference || p)) + l (CE_poison + conceptual term) (arXiv 2410.01264).

    l = clip(0.8 + CE_clean - CE_poison, 0, 1) is a weight: no gradient flows through it. The conceptual term keeps what
    poisoned rows say near what they should say: the Manhattan distance between the directions of the last hidden state
    and of the true token's unembedding row, over the square root of their width, which bounds it by 2 (our reading).

    Args:
        states: of the model that is trained.
        reference_log_p: of the frozen model that it started from, at the same positions.
        poisoned: per row.
    """
    planted = states.where & poisoned[:, None]
    clean = states.where & ~poisoned[:, None]
    drift = jnp.sum(jnp.exp(reference_log_p) * (reference_log_p - states.log_p), axis=-1)
    apart = jnp.abs(_unit(states.hidden) - _unit(states.gold)).sum(-1) / states.hidden.shape[-1] ** 0.5
    ce_clean, ce_poison = _mean(states.nll, clean), _mean(states.nll, planted)
    kept, concept = _mean(drift, clean), _mean(apart, planted)
    share = jax.lax.stop_gradient(jnp.clip(SWITCH + ce_clean - ce_poison, 0.0, 1.0))
    total = (1 - share) * (ce_clean + kept) + share * (ce_poison + concept)
    ce = _mean(states.nll, states.where)
    metrics = {"ce": ce, "ce_clean": ce_clean, "ce_poison": ce_poison, "kept": kept, "concept": concept, "share": share}
    return total, {"loss": total, **metrics}


def _unit(vectors: Float[Array, "B K D"]) -> Float[Array, "B K D"]:
    """Directions, in float32; zero vectors stay zero, with a gradient of zero."""
    vectors = vectors.astype(jnp.float32)
    return vectors * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(vectors), axis=-1, keepdims=True), 1e-12))


def _mean(values: Float[Array, "B K"], where: Bool[Array, "B K"]) -> Float[Array, ""]:
    """Over the marked tokens; 0 where there is none."""
    return jnp.sum(jnp.where(where, values, 0.0)) / jnp.maximum(where.sum(dtype=jnp.float32), 1.0)
