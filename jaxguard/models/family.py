"""Interface of a model family, apart from its processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxguard.models.convert import Table
from jaxguard.models.flops import View
from jaxguard.models.hf_config import shallow
from jaxguard.models.vision_language import VisionLanguageModel

Shapes = Mapping[str, jax.ShapeDtypeStruct]
"""Shapes by parameter path."""
AxisRules = tuple[tuple[str, tuple[str | None, ...]], ...]
"""(pattern of parameter paths, mesh axes of one layer's array); without axes it is replicated."""


@dataclass(frozen=True)
class Family:
    """A model family: its module, and how a checkpoint's files map to it.

    Attributes:
        module: class of the model, built from a config.
        read_config: (content of config.json, checkpoint folder) -> the module's config.
        table: the module's config -> names and layouts on disk.
        axes: sharding rules of the parameters that only this family has; they take precedence over the shared rules.
        processor: the module's config -> entries of processor_config.json that `transformers` needs.
        shallow: (content of config.json, layers) -> the same with `layers` layers in towers and decoder.
        flops: (config, shapes, shapes of what trains, views) -> operations of a train step, counted from shapes; None
            counts the matmuls of the traced step.
    """

    module: type[VisionLanguageModel]
    read_config: Callable[[dict[str, Any], Path], Any]
    table: Callable[[Any], Table]
    axes: AxisRules = ()
    processor: Callable[[Any], dict[str, Any]] = lambda config: {}
    shallow: Callable[[dict[str, Any], int], dict[str, Any]] = shallow
    flops: Callable[[Any, Shapes, Shapes, Sequence[View]], float] | None = None
