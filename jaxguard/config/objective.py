"""`objective`: what training minimises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxguard.config.checks import check_at_least, require


@dataclass(frozen=True)
class ObjectiveConfig:
    """L = CE(p) + alpha CE(q) + lambda R_cross + mu R_ent (arXiv 2604.04488; our interpretation: docs/objective.md)."""

    alpha: float = 0.0
    """Weight of the cross-entropy of the second view."""
    cross_view_weight: float = 0.0
    """lambda: weight of the cross-view term."""
    direction: Literal["repel", "attract"] = "repel"
    """Push the two views' distributions apart (the paper), or pull them together (ablation)."""
    margin: float = 5.0
    """Divergence J in nats above which `repel` has no effect."""
    entropy_weight: float = 0.0
    """mu: weight of the entropy band."""
    entropy_max: float | None = None
    """Upper bound of the entropy band in nats; None turns it off."""
    entropy_min: float | None = None
    """Lower bound of the entropy band in nats; None turns it off."""
    positions: Literal["answer", "content", "first"] = "answer"
    """Answer tokens of the cross-view and entropy terms: all; all but the end token; the first only."""
    cross_view_warmup: int = 0
    """Steps over which lambda rises linearly from 0."""
    cross_view_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Schedule of lambda after the warm-up; linear and cosine end at 0."""

    def __post_init__(self) -> None:
        check_at_least(
            0, "objective", self, "alpha", "cross_view_weight", "margin", "entropy_weight", "cross_view_warmup"
        )
        low, high = self.entropy_min, self.entropy_max
        check_at_least(
            0, "objective", self, *(name for name in ("entropy_min", "entropy_max") if getattr(self, name) is not None)
        )
        require(
            low is None or high is None or low <= high,
            f"objective.entropy_min ({low}) exceeds objective.entropy_max ({high})",
        )
        require(
            self.entropy_weight == 0 or low is not None or high is not None,
            "objective.entropy_weight is set but neither objective.entropy_min nor objective.entropy_max is",
        )

    @property
    def views(self) -> int:
        """Number of views that a step needs: 1 if no term uses the second."""
        return 2 if self.alpha > 0 or self.cross_view_weight > 0 else 1
