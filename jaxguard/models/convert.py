"""Hugging Face names and layouts of every parameter, as one table per family."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layout:
    """How an array lies in the two formats; both directions, and the shape on the Hugging Face side."""

    to_ours: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
    """(their array, our shape) -> our array."""
    to_theirs: Callable[[np.ndarray], np.ndarray]
    their_shape: Callable[[tuple[int, ...]], tuple[int, ...]]


def _patch_side(inputs: int) -> int:
    return round((inputs / 3) ** 0.5)


SAME = Layout(lambda x, shape: x, lambda x: x, lambda shape: shape)
TRANSPOSED = Layout(lambda x, shape: x.T, lambda x: x.T, lambda shape: shape[::-1])
CONVOLUTION = Layout(
    lambda x, shape: x.transpose(2, 3, 1, 0).reshape(shape),
    lambda x: x.reshape(_patch_side(x.shape[0]), -1, 3, x.shape[1]).transpose(3, 2, 0, 1),
    lambda shape: (shape[1], 3, _patch_side(shape[0]), _patch_side(shape[0])),
)
"""A convolution whose stride is its kernel: [out, in, h, w] there, [h w in, out] here."""


@dataclass(frozen=True)
class Rule:
    """One parameter: our dotted path, their name (`{layer}` where ours is a stack), and the layout."""

    ours: str
    theirs: str
    layout: Layout


@dataclass(frozen=True)
class Table:
    """A family's rules.

    `renames` are applied to names found on disk first, so that every published spelling of one layout is understood;
    names that match `ignored` (buffers, not parameters) are passed over.
    """

    rules: tuple[Rule, ...]
    renames: tuple[tuple[str, str], ...]
    ignored: str

    def canonical(self, name: str) -> str | None:
        """The name in this table's spelling, or None for a name that is passed over."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return None if re.search(self.ignored, name) else name


def _linear(ours: str, theirs: str) -> tuple[Rule, Rule]:
    return Rule(f"{ours}.kernel", f"{theirs}.weight", TRANSPOSED), Rule(f"{ours}.bias", f"{theirs}.bias", SAME)


def _norm(ours: str, theirs: str) -> tuple[Rule, Rule]:
    return Rule(f"{ours}.scale", f"{theirs}.weight", SAME), Rule(f"{ours}.bias", f"{theirs}.bias", SAME)


def _clip(ours: str, theirs: str) -> tuple[Rule, ...]:
    layer, there = f"{ours}.layers", f"{theirs}.encoder.layers.{{layer}}"
    return (
        Rule(f"{ours}.class_token", f"{theirs}.embeddings.class_embedding", SAME),
        Rule(f"{ours}.patch.kernel", f"{theirs}.embeddings.patch_embedding.weight", CONVOLUTION),
        Rule(f"{ours}.position", f"{theirs}.embeddings.position_embedding.weight", SAME),
        *_norm(f"{ours}.norm", f"{theirs}.pre_layrnorm"),
        *_norm(f"{layer}.norm1", f"{there}.layer_norm1"),
        *_linear(f"{layer}.query", f"{there}.self_attn.q_proj"),
        *_linear(f"{layer}.key", f"{there}.self_attn.k_proj"),
        *_linear(f"{layer}.value", f"{there}.self_attn.v_proj"),
        *_linear(f"{layer}.out", f"{there}.self_attn.out_proj"),
        *_norm(f"{layer}.norm2", f"{there}.layer_norm2"),
        *_linear(f"{layer}.up", f"{there}.mlp.fc1"),
        *_linear(f"{layer}.down", f"{there}.mlp.fc2"),
        *_norm(f"{ours}.post_norm", f"{theirs}.post_layernorm"),
    )


def _llama(ours: str, theirs: str, head: str) -> tuple[Rule, ...]:
    layer, there = f"{ours}.layers", f"{theirs}.layers.{{layer}}"
    return (
        Rule(f"{ours}.embedding.table", f"{theirs}.embed_tokens.weight", SAME),
        *_norm(f"{layer}.norm1", f"{there}.input_layernorm"),
        *_linear(f"{layer}.query", f"{there}.self_attn.q_proj"),
        *_linear(f"{layer}.key", f"{there}.self_attn.k_proj"),
        *_linear(f"{layer}.value", f"{there}.self_attn.v_proj"),
        *_linear(f"{layer}.out", f"{there}.self_attn.o_proj"),
        *_norm(f"{layer}.norm2", f"{there}.post_attention_layernorm"),
        *_linear(f"{layer}.gate", f"{there}.mlp.gate_proj"),
        *_linear(f"{layer}.up", f"{there}.mlp.up_proj"),
        *_linear(f"{layer}.down", f"{there}.mlp.down_proj"),
        *_norm(f"{ours}.norm", f"{theirs}.norm"),
        *_linear(f"{ours}.head", head),
    )


LLAVA = Table(
    rules=(
        *_clip("vision", "vision_tower.vision_model"),
        *_linear("projector.first", "multi_modal_projector.linear_1"),
        *_linear("projector.second", "multi_modal_projector.linear_2"),
        *_llama("language", "language_model.model", "language_model.lm_head"),
    ),
    renames=(
        (r"^model\.(vision_tower|multi_modal_projector)\.", r"\1."),
        (r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model."),
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
    ),
    ignored=r"(position_ids|rotary_emb\.inv_freq)$",
)
"""As llava-hf publishes it; newer `transformers` releases write `model.vision_tower.` and `lm_head.`."""
