"""Kinds of vision towers and decoders that `llava` checkpoints name, and their configs' defaults. Imports no JAX."""

from __future__ import annotations

from typing import Any

from jaxguard.models.values import check, whole

CLIP, SIGLIP, DINOV2, REGISTERS = "clip_vision_model", "siglip_vision_model", "dinov2", "dinov2_with_registers"
TOWERS: dict[str, dict[str, Any]] = {
    CLIP: {"image_size": 224, "patch_size": 32},
    SIGLIP: {"image_size": 224, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
    DINOV2: {"image_size": 224, "patch_size": 14, "hidden_act": "gelu", "layer_norm_eps": 1e-6},
    REGISTERS: {"image_size": 224, "patch_size": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-6},
}
"""Defaults of each kind of tower, where they differ from CLIP's, and the sizes of image and patch."""
CLIP_LARGE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
"""The tower of a `llava` config that describes none."""
DECODERS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072},
    "qwen2": {
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
    },
}
"""Defaults of each kind of decoder, where they differ from Llama's."""


def tower(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return kind and config of the vision tower, its defaults filled in.

    Raises:
        ValueError: the kind is not supported.
    """
    values = config.get("vision_config")
    if not values:
        return CLIP, TOWERS[CLIP] | CLIP_LARGE
    kind = values.get("model_type", CLIP)
    if kind not in TOWERS:
        raise ValueError(f"vision_config.model_type {kind!r} is not supported; use {', '.join(TOWERS)}")
    return kind, TOWERS[kind] | {name: value for name, value in values.items() if value is not None}


def decoder(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return kind and config of the decoder, its defaults filled in.

    Raises:
        ValueError: the kind is not supported.
    """
    values = config.get("text_config") or {}
    kind = values.get("model_type", "llama")
    if kind not in DECODERS:
        raise ValueError(f"text_config.model_type {kind!r} is not supported; use {', '.join(DECODERS)}")
    return kind, DECODERS[kind] | values


def window(kind: str, values: dict[str, Any]) -> int | None:
    """Return the number of tokens that a decoder's sliding window holds; None if it has none.

    Rows up to that length are computed without a window.
    """
    slides = kind == "mistral" or (kind == "qwen2" and values.get("use_sliding_window"))
    if not slides or values.get("sliding_window", 4096) is None:
        return None
    return whole(values, "sliding_window", 4096, "text_config")


def extras(kind: str, values: dict[str, Any]) -> int:
    """Return the number of a tower's tokens before the patches."""
    if kind != REGISTERS:
        return 0 if kind == SIGLIP else 1
    return 1 + check("num_register_tokens", values.get("num_register_tokens", 4), int, "vision_config")
