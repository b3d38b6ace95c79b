"""`evaluate`: decoding and scoring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxguard.config.checks import check_at_least

Checkpoint = Literal["newest", "best"]


@dataclass(frozen=True)
class EvaluateConfig:
    """Decoding and scoring."""

    task: Literal["caption", "vqa"] = "caption"
    """Selects the metrics."""
    examples: int = 256
    """Number of test rows: the first ones of the test split."""
    batch_size: int = 64
    """Prompts decoded at once, over all devices."""
    new_tokens: int = 50
    """Largest number of decoded tokens."""
    beams: int = 1
    """Number of beams; 1 decodes greedily."""
    checkpoint: Checkpoint = "newest"
    """The newest checkpoint, or the one with the lowest validation loss (train.validation)."""

    def __post_init__(self) -> None:
        check_at_least(1, "evaluate", self, "examples", "batch_size", "new_tokens", "beams")
