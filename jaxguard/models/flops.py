"""Floating-point operations of parts of a train step, counted from shapes: the model's, not the compiled program's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax


@dataclass(frozen=True)
class View:
    """Size of one view in a step: number of rows and, per row, of tokens, patches and answer positions."""

    rows: int
    tokens: int
    patches: int
    answers: int


def matrix_entries(shapes: Mapping[str, jax.ShapeDtypeStruct], prefix: str, layers: int | None = None) -> int:
    """Count the entries of the matrices under a path; with `layers`, those of a stack's first layers."""
    ends = (".kernel", ".lora.a", ".lora.b")
    kernels = [shape for path, shape in shapes.items() if path.startswith(prefix) and path.endswith(ends)]
    return sum(shape.size if layers is None else shape.size // shape.shape[0] * layers for shape in kernels)


def attention_flops(rows: int, tokens: int, width: int, layers: int) -> float:
    """Count the forward operations of scores and weighted sums."""
    return 4.0 * rows * tokens * tokens * width * layers
