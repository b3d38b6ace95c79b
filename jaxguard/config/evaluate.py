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
    """Which scores apply to the answers."""
    examples: int = 256
    """Test rows: the first of the test split."""
    batch_size: int = 64
    new_tokens: int = 50
    """Decoding stops here or at the end token."""
    beams: int = 1
    """Sequences that beam search keeps; 1 decodes greedily."""
    checkpoint: Checkpoint = "newest"
    """Whose parameters: the newest, or those of the lowest validation loss (train.validation)."""

    def __post_init__(self) -> None:
        check_at_least(1, "evaluate", self, "examples", "batch_size", "new_tokens", "beams")
