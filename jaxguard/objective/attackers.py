"""What TrojVLM's and VLOOD's attackers minimise: for judging what an attacker's own training leaves to clean up.

Unlike a defender's objective, VLOOD's reads which rows are poisoned.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxguard.objective.base import Context, Metrics, Needs, Objective, Sum, Targets, Terms
from jaxguard.objective.statistics import PairStatistics, TokenStatistics

SWITCH = 0.8
"""VLOOD's l is 0.8 where both kinds of rows are learnt equally well."""


@dataclass(frozen=True)
class TrojVlm(Objective):
    """CE + the semantic term, over clean and poisoned rows alike (arXiv 2409.19232).

    The semantic term is 1 - cos(last hidden state, unembedding row of the true token).
    """

    @property
    def needs(self) -> Needs:
        return Needs(hidden=True)

    def terms(self, *, statistics: TokenStatistics, targets: Targets, context: Context) -> Terms:
        """Both terms over answer tokens."""
        hidden, unembedding = _directions(context)
        cosine = jnp.sum(hidden * unembedding, axis=-1)
        return {
            "ce": Sum.over(statistics.nll_p, targets.answer),
            "semantic": Sum.over(1 - cosine, targets.answer),
        }

    def loss(self, *, terms: Terms, step: Int[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
        """The sum of both means."""
        means = {name: term.mean for name, term in terms.items()}
        total = means["ce"] + means["semantic"]
        return total, {"loss": total, **means}


@dataclass(frozen=True)
class Vlood(Objective):
    """(1 - l)(CE_clean + KL(reference || p)) + l (CE_poison + conceptual term) (arXiv 2410.01264).

    l = clip(0.8 + CE_clean - CE_poison, 0, 1) is a weight: no gradient flows through it. The conceptual term keeps what
    poisoned rows say near what they should say: the Manhattan distance between the directions of the last hidden state
    and of the true token's unembedding row, over the square root of their width, which bounds it by 2 (our reading).
    """

    @property
    def needs(self) -> Needs:
        return Needs(reference="divergence", hidden=True, labels=True, totals=True)

    def terms(self, *, statistics: TokenStatistics, targets: Targets, context: Context) -> Terms:
        """CE and drift over clean answer tokens, CE and the conceptual term over poisoned ones."""
        assert context.poisoned is not None
        assert isinstance(context.reference, PairStatistics)
        poisoned = targets.answer & context.poisoned[:, None]
        clean = targets.answer & ~context.poisoned[:, None]
        hidden, unembedding = _directions(context)
        apart = jnp.abs(hidden - unembedding).sum(-1) / hidden.shape[-1] ** 0.5
        return {
            "ce": Sum.over(statistics.nll_p, targets.answer),
            "ce_clean": Sum.over(statistics.nll_p, clean),
            "ce_poison": Sum.over(statistics.nll_p, poisoned),
            "kept": Sum.over(context.reference.kl_qp, clean),
            "concept": Sum.over(apart, poisoned),
        }

    def loss(self, *, terms: Terms, step: Int[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
        """Both halves, weighted by l (`share`)."""
        means = {name: term.mean for name, term in terms.items()}
        share = jax.lax.stop_gradient(jnp.clip(SWITCH + means["ce_clean"] - means["ce_poison"], 0.0, 1.0))
        clean, poison = means["ce_clean"] + means["kept"], means["ce_poison"] + means["concept"]
        total = (1 - share) * clean + share * poison
        return total, {"loss": total, **means, "share": share}


def _directions(context: Context) -> tuple[Float[Array, "B A D"], Float[Array, "B A D"]]:
    """Unit vectors of the hidden states and of the true tokens' unembedding rows."""
    assert context.hidden is not None
    assert context.unembedding is not None
    return _unit(context.hidden), _unit(context.unembedding)


def _unit(vectors: Float[Array, "B A D"]) -> Float[Array, "B A D"]:
    """Directions, in float32; zero vectors stay zero, with a gradient of zero."""
    vectors = vectors.astype(jnp.float32)
    return vectors * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(vectors), axis=-1, keepdims=True), 1e-12))
