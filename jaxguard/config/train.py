"""`train`: optimisation and bookkeeping."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxguard.config.checks import check_at_least, check_share, require


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation and bookkeeping of one run."""

    steps: int = 200
    batch_size: int = 32
    """Rows over all devices."""
    accumulate: int = 1
    """Micro-batches that a step runs one behind the other; loss and gradient are those of the whole batch."""
    learning_rate: float = 1e-3
    warmup: int = 20
    """Steps of linear warm-up; cosine decay to `final_lr_ratio` x the peak follows."""
    final_lr_ratio: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """Global gradient norm."""
    log_every: int = 20
    save_every: int = 500
    save_minutes: float | None = None
    """Save also so long after the last time, as soon as metrics are logged; None goes by steps alone."""
    keep: int = 2
    """Newest checkpoints kept."""
    keep_best: int = 0
    """Checkpoints kept besides for the lowest validation loss."""
    validation: int = 0
    """Rows of data.validation_split whose loss is taken at every save; 0 takes none."""
    probe: int = 0
    """Poisoned training rows, and as many clean ones, of which loss, entropy and J are logged beside the metrics."""

    def __post_init__(self) -> None:
        check_at_least(1, "train", self, "steps", "batch_size", "accumulate", "log_every", "save_every", "keep")
        check_at_least(0, "train", self, "warmup", "weight_decay", "keep_best", "validation", "probe")
        require(
            self.save_minutes is None or 0 < self.save_minutes < math.inf,
            f"train.save_minutes is {self.save_minutes}: must be finite and positive, or None",
        )
        require(
            self.keep_best == 0 or self.validation > 0,
            "train.keep_best is set but train.validation, the rows to judge by, is 0",
        )
        check_share("train.final_lr_ratio", self.final_lr_ratio)
        for name in ("learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"train.{name} is {value}: must be finite and positive")
