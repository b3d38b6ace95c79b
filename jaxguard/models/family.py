"""What the library asks of a model family, beside its processor."""

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
"""By parameter path."""
AxisRules = tuple[tuple[str, tuple[str | None, ...]], ...]
"""(pattern of parameter paths, mesh axes of one layer's array); no axes: replicated."""


@dataclass(frozen=True)
class Family:
    """A model family: how a checkpoint's files become a module.

    Attributes:
        module: built from a config.
        read_config: (config.json, the folder with the other files) -> the module's config.
        table: the module's config -> names and layouts on disk.
        axes: sharding rules of the parameters that only this family has; they go before the shared ones.
        shallow: (config.json, layers) -> the same with towers and decoder of that many layers.
        flops: (config, shapes, those that train, views) -> operations of a train step, counted from shapes; None counts
            the matrix products of the traced step.
    """

    module: type[VisionLanguageModel]
    read_config: Callable[[dict[str, Any], Path], Any]
    table: Callable[[Any], Table]
    axes: AxisRules = ()
    shallow: Callable[[dict[str, Any], int], dict[str, Any]] = shallow
    flops: Callable[[Any, Shapes, Shapes, Sequence[View]], float] | None = None
