"""`train`: optimisation and bookkeeping."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxguard.config.checks import check_at_least, check_share, require


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation and bookkeeping of one run."""

    steps: int = 200
    """Number of optimizer steps."""
    epochs: float | None = None
    """Number of passes over the training rows, instead of `steps`."""
    batch_size: int = 32
    """Rows per step, over all devices."""
    accumulate: int = 1
    """Number of sequential micro-batches per step; loss and gradient are those of the whole batch."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    warmup: int = 20
    """Steps of linear warm-up, before the cosine decay."""
    final_lr_ratio: float = 0.05
    """Final over peak learning rate."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """Gradients are clipped to this global norm."""
    log_every: int = 20
    """Steps between logged metrics."""
    save_every: int = 500
    """Steps between checkpoints."""
    save_minutes: float | None = None
    """Minutes between checkpoints, in addition; checked when metrics are logged. None: steps only."""
    keep: int = 2
    """Number of newest checkpoints to keep."""
    keep_best: int = 0
    """Number of checkpoints with the lowest validation loss to keep, in addition."""
    validation: int = 0
    """Number of rows of data.validation_split whose loss is computed at every save."""
    probe: int = 0
    """Number of poisoned, and of clean, training rows whose loss, entropy and J are logged."""

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
        require(
            self.epochs is None or 0 < self.epochs < math.inf,
            f"train.epochs is {self.epochs}: must be finite and positive, or None",
        )
        check_share("train.final_lr_ratio", self.final_lr_ratio)
        for name in ("learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"train.{name} is {value}: must be finite and positive")
