"""A checkpoint's JSON files to our configs. Unsupported settings are errors, never ignored."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from jaxguard.files import read_object
from jaxguard.models.layers import ACTIVATIONS
from jaxguard.models.llama import LlamaConfig
from jaxguard.models.rope import Rope
from jaxguard.models.vit import VitConfig


def llama(values: dict) -> LlamaConfig:
    """Read a decoder's config. Raises ValueError if it asks for something unsupported."""
    text = pick(LlamaConfig, values, rope=Rope.read(values))
    check_heads(text.hidden_size if values.get("head_dim") is None else 0, text.num_attention_heads)
    check_heads(text.num_attention_heads, text.groups)
    check_activations(text.hidden_act)
    return text


def vision(values: dict, **differences: bool) -> VitConfig:
    """Read a vision tower's config. Raises ValueError if it asks for something unsupported.

    Args:
        values: the tower's part of config.json.
        differences: fields of `VitConfig` in which the family's tower differs from CLIP's.
    """
    tower = pick(VitConfig, values, **differences)
    if tower.image_size % tower.patch_size:
        raise ValueError(f"vision patch_size {tower.patch_size} does not divide image_size {tower.image_size}")
    check_heads(tower.hidden_size, tower.num_attention_heads)
    check_activations(tower.hidden_act)
    return tower


def shallow(values: dict[str, Any], layers: int) -> dict[str, Any]:
    """Return config.json with `layers` layers in `vision_config` and `text_config`."""
    parts = {name: {**values.get(name, {}), "num_hidden_layers": layers} for name in ("vision_config", "text_config")}
    return {**values, **parts}


def pixel_statistics(folder: Path) -> dict[str, tuple]:
    """Read `image_mean` and `image_std` from a checkpoint's preprocessor file; absent entries are left out."""
    path = folder / "preprocessor_config.json"
    values = read_object(path) if path.is_file() else {}
    return {name: tuple(values[name]) for name in ("image_mean", "image_std") if name in values}


def pick(kind: type, values: dict, **own: Any) -> Any:
    """Build a config dataclass from the entries of a JSON object that name its fields; others keep their defaults."""
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in names and value is not None} | own)


def check_kind(part: str, values: dict, known: str) -> None:
    """Raise ValueError if the `model_type` of a part of config.json is not `known`."""
    if values.get("model_type", known) != known:
        raise ValueError(f"{part}.model_type {values['model_type']!r} is not supported; use {known}")


def check_heads(width: int, heads: int) -> None:
    """Raise ValueError if the number of heads does not divide the width."""
    if width % heads:
        raise ValueError("attention heads do not divide the width")


def check_activations(*names: str) -> None:
    """Raise ValueError if a name is not one of `ACTIVATIONS`."""
    for name in names:
        if name not in ACTIVATIONS:
            raise ValueError(f"activation {name!r} is not supported; use one of {', '.join(ACTIVATIONS)}")
