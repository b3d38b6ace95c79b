"""Operations of parts of a train step, counted from shapes: what the model needs, not what a compiler spends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax


@dataclass(frozen=True)
class View:
    """What a step runs of one view: rows of so many tokens, images of so many patches, answers through the head."""

    rows: int
    tokens: int
    patches: int
    answers: int


def matrix_entries(shapes: Mapping[str, jax.ShapeDtypeStruct], prefix: str, layers: int | None = None) -> int:
    """Entries of the matrices under a path; of a stack, of its first `layers` layers."""
    ends = (".kernel", ".lora.a", ".lora.b")
    kernels = [shape for path, shape in shapes.items() if path.startswith(prefix) and path.endswith(ends)]
    return sum(shape.size if layers is None else shape.size // shape.shape[0] * layers for shape in kernels)


def attention_flops(rows: int, tokens: int, width: int, layers: int) -> float:
    """Forward operations of scores and weighted sums."""
    return 4.0 * rows * tokens * tokens * width * layers
