"""Floating-point operations of a train step of LLaVA."""

from __future__ import annotations

from collections.abc import Sequence

from jaxguard.models.families.llava.model import LlavaConfig
from jaxguard.models.family import Shapes
from jaxguard.models.flops import View, attention_flops, matrix_entries


def step_flops(config: LlavaConfig, shapes: Shapes, trains: Shapes, views: Sequence[View]) -> float:
    """Count the operations of one train step.

    A weight matrix costs 2 operations per weight and token in the forward pass, 2 more if gradients flow through it and
    2 more if it trains. Attention's two matmuls cost the same, without weights. Dropped tokens are not computed and not
    counted. Causal masks give no discount, and rematerialisation adds nothing.
    """
    vision, text = config.vision, config.text
    depth = max(d if d >= 0 else vision.num_hidden_layers + 1 + d for d in config.feature_layers)
    tower_trains = any(path.startswith("vision.") for path in trains)
    head = "language.embedding.table" if text.tie_word_embeddings else "language.head.kernel"

    def work(prefix: str, layers: int | None = None, *, flows: bool) -> int:
        return (4 if flows else 2) * matrix_entries(shapes, prefix, layers) + 2 * matrix_entries(trains, prefix, layers)

    total = 0.0
    for view in views:
        tower, whole = view.patches + vision.extras, view.rows * view.tokens
        total += view.rows * tower * work("vision.layers.", depth, flows=tower_trains)
        total += view.rows * vision.patches * work("vision.patch.", flows=False)
        total += attention_flops(view.rows, tower, vision.hidden_size, depth) * (3 if tower_trains else 1)
        total += view.rows * view.patches * work("projector.", flows=tower_trains)
        total += whole * work("language.layers.", flows=True)
        width = text.num_attention_heads * text.depth
        total += 3 * attention_flops(view.rows, view.tokens, width, text.num_hidden_layers)
        total += view.rows * view.answers * shapes[head].size * (6 if head in trains else 4)
    return total
