"""The paper's objective (arXiv 2604.04488, our reading): CE + alpha CE' + lambda R_cross + mu R_ent."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxguard.config import ObjectiveConfig
from jaxguard.objective.base import Context, Metrics, Needs, Objective, Sum, Targets, Terms
from jaxguard.objective.schedules import cross_view_weight
from jaxguard.objective.statistics import PairStatistics, TokenStatistics


@dataclass(frozen=True)
class Paper(Objective):
    """The paper's objective, and with weights of 0 its ablations down to cross-entropy alone.

    Attributes:
        config: weights and switches.
        steps: number of optimizer steps of the run, for the schedule of lambda.
        end_token: id of the token that ends an answer.
    """

    config: ObjectiveConfig
    steps: int
    end_token: int

    @property
    def needs(self) -> Needs:
        return Needs(views=self.config.views)

    def terms(self, *, statistics: TokenStatistics, targets: Targets, context: Context) -> Terms:
        """Cross-entropies over answer tokens, and the other terms over `regularised` ones.

        Those that need a second view are 0 for rows without one.
        """
        where = regularised(targets, self.config.positions, self.end_token)
        ce_view = cross = divergence = Sum.zero()
        if isinstance(statistics, PairStatistics):
            ce_view = Sum.over(statistics.nll_q, targets.answer)
            cross = Sum.over(self._cross(statistics.divergence), where)
            divergence = Sum.over(statistics.divergence, where)
        return {
            "ce": Sum.over(statistics.nll_p, targets.answer),
            "ce_view": ce_view,
            "cross": cross,
            "divergence": divergence,
            "band": Sum.over(self._band(statistics.entropy_p), where),
            "entropy": Sum.over(statistics.entropy_p, where),
        }

    def loss(self, *, terms: Terms, step: Int[Array, ""]) -> tuple[Float[Array, ""], Metrics]:
        """The terms' means over their counts, weighted; the same means as metrics."""
        means = {name: term.mean for name, term in terms.items()}
        weight = cross_view_weight(self.config, self.steps)(step)
        total = (
            means["ce"]
            + self.config.alpha * means["ce_view"]
            + weight * means["cross"]
            + self.config.entropy_weight * means["band"]
        )
        return total, {"loss": total, **means, "cross_weight": weight}

    def _cross(self, divergence: Float[Array, "B A"]) -> Float[Array, "B A"]:
        """`repel` pushes J up to the margin; `attract` pulls it to 0."""
        return jnp.maximum(0.0, self.config.margin - divergence) if self.config.direction == "repel" else divergence

    def _band(self, entropy: Float[Array, "B A"]) -> Float[Array, "B A"]:
        """Distance of the entropy to [entropy_min, entropy_max]; a side that is None is off."""
        distance = jnp.zeros_like(entropy)
        if self.config.entropy_max is not None:
            distance += jnp.maximum(0.0, entropy - self.config.entropy_max)
        if self.config.entropy_min is not None:
            distance += jnp.maximum(0.0, self.config.entropy_min - entropy)
        return distance


def regularised(targets: Targets, positions: str, end_token: int) -> Bool[Array, "B A"]:
    """Mask of the tokens that the cross-view and entropy terms act on.

    Args:
        targets: the tokens looked at.
        positions: "answer", "content" (without the end token) or "first" (the first token of each answer).
        end_token: id of the token that ends an answer.
    """
    answer, segments = targets.answer, targets.segments
    if positions == "content":
        return answer & (targets.tokens != end_token)
    if positions == "first":
        before = jnp.pad(answer[:, :-1], ((0, 0), (1, 0))) & (segments == jnp.pad(segments[:, :-1], ((0, 0), (1, 0))))
        return answer & ~before
    return answer
