"""`model`: which checkpoint, and what of it trains."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from jaxguard.config.checks import check_at_least, require
from jaxguard.errors import UserError

Remat = Literal["none", "dots", "full"]
"""What the backward pass computes again: nothing; all of a layer but its products with weights; a whole layer."""


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters, where `model.trainable` is "lora"."""

    rank: int = 16
    alpha: float = 32.0
    """The adapter's output is scaled by alpha / rank."""
    dropout: float = 0.0
    """Of the adapter's input, while training."""
    targets: str = r"^language\.layers\."
    """A regular expression over the paths of linear layers: language.layers.query, projector.first, ..."""

    def __post_init__(self) -> None:
        check_at_least(1, "model.lora", self, "rank")
        require(0 < self.alpha < math.inf, f"model.lora.alpha is {self.alpha}: must be finite and positive")
        require(0 <= self.dropout < 1, f"model.lora.dropout is {self.dropout}: must lie in [0, 1)")
        try:
            re.compile(self.targets)
        except re.error as error:
            raise UserError(f"model.lora.targets {self.targets!r} is not a regular expression ({error})") from error


@dataclass(frozen=True)
class ModelConfig:
    """Which checkpoint, and what of it trains."""

    path: str = "tiny-llava"
    """A folder in Hugging Face layout, or the name of a checkpoint shipped in jaxguard/zoo."""
    init: Literal["pretrained", "random"] = "pretrained"
    """`random` keeps the architecture and tokenizer of `path` and draws fresh weights."""
    trainable: Literal["projector", "lora", "decoder", "language", "all"] = "language"
    """What joins tower and decoder; adapters only; the decoder, not the queries that read the tower; that and the
    queries; everything."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type. Trainable parameters and losses are float32."""
    remat: Remat = "none"
    """What the backward pass computes again, layer by layer: nothing; all but products with weights; everything."""
