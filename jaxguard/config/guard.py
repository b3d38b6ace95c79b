"""`guard`: which answer tokens training leaves out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxguard.config.checks import check_at_least, require


@dataclass(frozen=True)
class GuardConfig:
    """Leave out the answer tokens that neither the reference nor the rows' own language explain (docs/guard.md).

    The reference is the model that training starts from.
    """

    active: bool = False
    """Measure the rows before training, and leave out what is suspicious."""
    reference_surprise: float = 2.0
    """Tokens whose surprise (NLL - entropy, nats) under the reference is at most this are always learnt."""
    channel_surprise: float = 0.5
    """Of the others, those are left out whose surprise under the channel, in nats, exceeds this."""
    alternatives: int = 32
    """Number of the reference's likeliest tokens that the channel reads at each place."""
    false_discoveries: float = 0.01
    """Expected share of honest phrases among the convicted ones, at most."""

    def __post_init__(self) -> None:
        for name in ("reference_surprise", "channel_surprise"):
            require(math.isfinite(getattr(self, name)), f"guard.{name} is {getattr(self, name)}: must be finite")
        check_at_least(1, "guard", self, "alternatives")
        rate = self.false_discoveries
        require(0 < rate < 1, f"guard.false_discoveries is {rate}: must be between 0 and 1")
