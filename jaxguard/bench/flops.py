"""Floating-point operations of a train step, counted from shapes: those of the model, not of the compiled program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax

from jaxguard.bench.hardware import CHIPS
from jaxguard.models.architecture import Architecture
from jaxguard.train.state import partition


def peak(kind: str) -> float | None:
    """Look up the peak dense bfloat16 operations per second of a kind of device; None if unknown."""
    chips = [chip for chip in CHIPS.values() if kind.startswith(chip.kind)]
    return max(chips, key=lambda chip: len(chip.kind)).flops if chips else None


@dataclass(frozen=True)
class View:
    """Sizes of one view of a step.

    Attributes:
        rows: Number of rows.
        tokens: Tokens per row.
        patches: Image patches per row.
        answers: Answer positions per row that go through the head.
    """

    rows: int
    tokens: int
    patches: int
    answers: int


def step_flops(arch: Architecture, trainable: str, views: Sequence[View]) -> float:
    """Count the operations of one train step of a LLaVA.

    A weight matrix costs 2 operations per weight and token in the forward pass, 2 more if gradients flow through it
    and 2 more if it is trained; so do the two matmuls of attention, without the last part. Dropped tokens are not
    counted. Causal masks are not discounted; recomputation is not added.
    """
    trains, _ = partition(arch.shapes, trainable)
    vision, text = arch.config.vision, arch.config.text
    depth = max(d if d >= 0 else vision.num_hidden_layers + 1 + d for d in arch.config.feature_layers)
    tower_trains = any(path.startswith("vision.") for path in trains)
    head = "language.embedding.table" if text.tie_word_embeddings else "language.head.kernel"

    def work(prefix: str, layers: int | None = None, *, flows: bool) -> int:
        return (4 if flows else 2) * _weights(arch.shapes, prefix, layers) + 2 * _weights(trains, prefix, layers)

    total = 0.0
    for view in views:
        tower, whole = view.patches + 1, view.rows * view.tokens
        total += view.rows * tower * work("vision.layers.", depth, flows=tower_trains)
        total += view.rows * vision.patches * work("vision.patch.", flows=False)
        total += _attention(view.rows, tower, vision.hidden_size, depth) * (3 if tower_trains else 1)
        total += view.rows * view.patches * work("projector.", flows=tower_trains)
        total += whole * work("language.layers.", flows=True)
        total += 3 * _attention(view.rows, view.tokens, text.num_attention_heads * text.depth, text.num_hidden_layers)
        total += view.rows * view.answers * arch.shapes[head].size * (6 if head in trains else 4)
    return total


def _weights(shapes: Mapping[str, jax.ShapeDtypeStruct], prefix: str, layers: int | None = None) -> int:
    """Count the entries of the matrices under a path; of a layer stack, those of the first `layers` layers."""
    ends = (".kernel", ".lora.a", ".lora.b")
    kernels = [shape for path, shape in shapes.items() if path.startswith(prefix) and path.endswith(ends)]
    return sum(shape.size if layers is None else shape.size // shape.shape[0] * layers for shape in kernels)


def _attention(rows: int, tokens: int, width: int, layers: int) -> float:
    """Count the forward operations of attention scores and weighted sums."""
    return 4.0 * rows * tokens * tokens * width * layers
