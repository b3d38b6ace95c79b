"""The paper's objective (arXiv 2604.04488, our reading): CE + alpha CE' + lambda R_cross + mu R_ent.

Every term is a masked sum over answer tokens together with its count, so that sums over micro-batches, devices or
processes divide to exactly the loss of the whole batch.
"""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxguard.config import ObjectiveConfig
from jaxguard.objective.statistics import PairStatistics, TokenStatistics


@flax.struct.dataclass
class Masks:
    """Which target tokens count: for the cross-entropies, and for the cross-view and entropy terms."""

    answer: Bool[Array, "B T"]
    regularised: Bool[Array, "B T"]


def masks(
    answer: Bool[Array, "B T"],
    targets: Int[Array, "B T"],
    segments: Int[Array, "B T"],
    *,
    positions: str,
    end_token: int,
) -> Masks:
    """Masks over target tokens.

    Args:
        answer: target t is part of an answer.
        targets: target tokens.
        segments: segment of each target (packed rows hold one answer per segment).
        positions: "answer", "content" (without the end token) or "first" (the first token of each answer).
        end_token: id of the token that ends an answer.
    """
    if positions == "content":
        return Masks(answer=answer, regularised=answer & (targets != end_token))
    if positions == "first":
        before = jnp.pad(answer[:, :-1], ((0, 0), (1, 0))) & (segments == jnp.pad(segments[:, :-1], ((0, 0), (1, 0))))
        return Masks(answer=answer, regularised=answer & ~before)
    return Masks(answer=answer, regularised=answer)


@flax.struct.dataclass
class Terms:
    """Masked sums of the objective's terms over target tokens, and the counts they are divided by; float32 scalars."""

    ce_p: Float[Array, ""]
    ce_q: Float[Array, ""]
    cross: Float[Array, ""]
    divergence: Float[Array, ""]
    band: Float[Array, ""]
    entropy: Float[Array, ""]
    answer_count: Float[Array, ""]
    view_count: Float[Array, ""]
    """Answer tokens that a second view answers too, and below, those of them that the cross-view term acts on."""
    cross_count: Float[Array, ""]
    regularised_count: Float[Array, ""]


def terms(statistics: TokenStatistics, where: Masks, objective: ObjectiveConfig) -> Terms:
    """The objective's terms; those that need a second view are 0 where there is none. Finite for empty masks."""
    answers, regularised = _count(where.answer), _count(where.regularised)
    ce_q = cross = divergence = view_count = cross_count = jnp.zeros((), jnp.float32)
    if isinstance(statistics, PairStatistics):
        ce_q = _sum(statistics.nll_q, where.answer)
        cross = _sum(_cross(statistics.divergence, objective), where.regularised)
        divergence = _sum(statistics.divergence, where.regularised)
        view_count, cross_count = answers, regularised
    return Terms(
        ce_p=_sum(statistics.nll_p, where.answer),
        ce_q=ce_q,
        cross=cross,
        divergence=divergence,
        band=_sum(_band(statistics.entropy_p, objective), where.regularised),
        entropy=_sum(statistics.entropy_p, where.regularised),
        answer_count=answers,
        view_count=view_count,
        cross_count=cross_count,
        regularised_count=regularised,
    )


def counts(where: Masks, pairs: Masks | None) -> dict[str, Float[Array, ""]]:
    """The counts of `Terms`, from the masks alone.

    Where `Terms` of a micro-batch has the counts of the whole batch, its loss is its share of the whole loss: those of
    all micro-batches add up to it, and so do their gradients.

    Args:
        where: of all rows.
        pairs: of those that have a second view; None where there is none.
    """
    none = jnp.zeros((), jnp.float32)
    viewed, crossed = (none, none) if pairs is None else (_count(pairs.answer), _count(pairs.regularised))
    return {
        "answer_count": _count(where.answer),
        "view_count": viewed,
        "cross_count": crossed,
        "regularised_count": _count(where.regularised),
    }


def loss(
    terms: Terms, cross_weight: Float[Array, ""], objective: ObjectiveConfig
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The scalar loss (means over counted tokens, weighted) and the same terms as metrics."""
    counts = (terms.answer_count, terms.view_count, terms.cross_count, terms.regularised_count)
    answers, viewed, crossed, regularised = (jnp.maximum(count, 1.0) for count in counts)
    metrics = {
        "ce": terms.ce_p / answers,
        "ce_view": terms.ce_q / viewed,
        "cross": terms.cross / crossed,
        "divergence": terms.divergence / crossed,
        "band": terms.band / regularised,
        "entropy": terms.entropy / regularised,
    }
    total = (
        metrics["ce"]
        + objective.alpha * metrics["ce_view"]
        + cross_weight * metrics["cross"]
        + objective.entropy_weight * metrics["band"]
    )
    return total, {"loss": total, **metrics}


def _cross(divergence: Float[Array, "B T"], objective: ObjectiveConfig) -> Float[Array, "B T"]:
    """`repel` pushes J up to the margin; `attract` pulls it to 0."""
    return jnp.maximum(0.0, objective.margin - divergence) if objective.direction == "repel" else divergence


def _band(entropy: Float[Array, "B T"], objective: ObjectiveConfig) -> Float[Array, "B T"]:
    """Distance of the entropy to [entropy_min, entropy_max]; a side that is None is off."""
    distance = jnp.zeros_like(entropy)
    if objective.entropy_max is not None:
        distance += jnp.maximum(0.0, entropy - objective.entropy_max)
    if objective.entropy_min is not None:
        distance += jnp.maximum(0.0, objective.entropy_min - entropy)
    return distance


def _count(where: Bool[Array, "B T"]) -> Float[Array, ""]:
    return where.sum(dtype=jnp.float32)


def _sum(values: Float[Array, "B T"], where: Bool[Array, "B T"]) -> Float[Array, ""]:
    return jnp.sum(jnp.where(where, values, 0.0))
