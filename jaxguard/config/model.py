"""`model`: which checkpoint, and what of it trains."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from jaxguard.config.checks import check_at_least, require
from jaxguard.errors import UserError

Remat = Literal["none", "dots", "full"]
"""Recomputed in the backward pass: nothing; everything in a layer except matmuls with weights; whole layers."""


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters, for `model.trainable` "lora"."""

    rank: int = 16
    """Rank of the adapters."""
    alpha: float = 32.0
    """The adapter's output is scaled by alpha / rank."""
    dropout: float = 0.0
    """Dropout rate of the adapter's input in training."""
    targets: str = r"^language\.layers\."
    """Regular expression over the paths of linear layers: language.layers.query, projector.first, ..."""

    def __post_init__(self) -> None:
        check_at_least(1, "model.lora", self, "rank")
        require(0 < self.alpha < math.inf, f"model.lora.alpha is {self.alpha}: must be finite and positive")
        require(0 <= self.dropout < 1, f"model.lora.dropout is {self.dropout}: must be in [0, 1)")
        try:
            re.compile(self.targets)
        except re.error as error:
            raise UserError(f"model.lora.targets {self.targets!r} is not a regular expression ({error})") from error


@dataclass(frozen=True)
class ModelConfig:
    """Checkpoint and trainable parameters."""

    path: str = "tiny-llava"
    """Folder in Hugging Face layout, or name of a checkpoint shipped in jaxguard/zoo."""
    init: Literal["pretrained", "random"] = "pretrained"
    """`random` initialises the weights randomly; architecture and tokenizer are those of `path`."""
    trainable: Literal["projector", "lora", "decoder", "language", "all"] = "language"
    """`projector`: everything between tower and decoder; `lora`: the adapters; `decoder`: decoder and projection;
    `language`: decoder and everything between; `all`: all parameters."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation. Trainable parameters and losses are float32."""
    remat: Remat = "none"
    """Recomputed in the backward pass: nothing; all of a layer except matmuls with weights; whole layers."""
