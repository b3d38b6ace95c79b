"""A checkpoint's JSON files to our configs. Unsupported settings are errors, never ignored."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from jaxguard.models.checkpoint_files import read_preprocessor
from jaxguard.models.layers import ACTIVATIONS
from jaxguard.models.llama import LlamaConfig
from jaxguard.models.rope import Rope
from jaxguard.models.values import check, kinds
from jaxguard.models.vision_language import CLIP_MEAN, CLIP_STD, Statistics
from jaxguard.models.vit import VitConfig

HALVES: Statistics = (0.5, 0.5, 0.5)
STATISTICS = {"SiglipImageProcessor": (HALVES, HALVES)}
"""Mean and deviation of image processors whose defaults are not CLIP's."""


def llama(values: dict, part: str = "text_config", /, **differences: bool) -> LlamaConfig:
    """Read a decoder's config. Raises ValueError if it asks for something unsupported.

    Args:
        values: the decoder's part of config.json.
        part: its name there, for errors.
        differences: fields of `LlamaConfig` in which the decoder differs from Llama.
    """
    text = pick(LlamaConfig, values, part, rope=Rope.read(values), **differences)
    factors = text.rope.short_factor, text.rope.long_factor
    numbers = all(type(one) in (int, float) and one > 0 for by in factors for one in by or ())
    if text.rope.rope_type == "longrope" and not (numbers and all(len(by or ()) == text.depth // 2 for by in factors)):
        raise ValueError(
            f"rope_parameters: short_factor and long_factor must have {text.depth // 2} positive numbers each"
        )
    check_heads(text.hidden_size if values.get("head_dim") is None else 0, text.num_attention_heads)
    check_heads(text.num_attention_heads, text.groups)
    check_activations(text.hidden_act)
    return text


def vision(values: dict, **differences: bool | int) -> VitConfig:
    """Read a vision tower's config. Raises ValueError if it asks for something unsupported.

    Args:
        values: the tower's part of config.json.
        differences: fields of `VitConfig` in which the family's tower differs from CLIP's.
    """
    tower = pick(VitConfig, values, "vision_config", **differences)
    if tower.num_channels != 3:
        raise ValueError(f"vision_config.num_channels {tower.num_channels} is not supported; use 3")
    if tower.image_size % tower.patch_size:
        raise ValueError(f"vision patch_size {tower.patch_size} does not divide image_size {tower.image_size}")
    check_heads(tower.hidden_size, tower.num_attention_heads)
    check_activations(tower.hidden_act)
    return tower


def shallow(values: dict[str, Any], layers: int) -> dict[str, Any]:
    """Return config.json with `layers` layers in `vision_config` and `text_config`."""
    parts = {name: {**values.get(name, {}), "num_hidden_layers": layers} for name in ("vision_config", "text_config")}
    return {**values, **parts}


def pixel_statistics(folder: Path) -> dict[str, Statistics]:
    """Read how the image processor normalises pixels: mean and deviation of pixels / 255.

    Pixels p become (p `rescale_factor` - `image_mean`) / `image_std`, each step only if `do_rescale` and `do_normalize`
    say so; another factor than 1 / 255 changes the mean and the deviation that are returned.

    Raises:
        ValueError: the file asks for something that is no number.
    """
    values = read_preprocessor(folder)
    mean, std = STATISTICS.get(values.get("image_processor_type", "").removesuffix("Fast"), (CLIP_MEAN, CLIP_STD))
    mean, std = _three(values, "image_mean", mean), _three(values, "image_std", std)
    if not all(std):
        raise ValueError(f"preprocessor_config.json: image_std is {list(std)}: must not be 0")
    factor = check("rescale_factor", values.get("rescale_factor", 1 / 255), float)
    factor = factor if check("do_rescale", values.get("do_rescale", True), bool) else 1.0
    if not factor:
        raise ValueError("preprocessor_config.json: rescale_factor is 0, which makes every image black")
    if not check("do_normalize", values.get("do_normalize", True), bool):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        mean, std = _divided(mean, 255 * factor), _divided(std, 255 * factor)
    return {"image_mean": mean, "image_std": std}


def _divided(three: Statistics, by: float) -> Statistics:
    red, green, blue = (value / by for value in three)
    return red, green, blue


def _three(values: dict[str, Any], name: str, default: Statistics) -> Statistics:
    """Return a value per colour."""
    stated = values.get(name, default)
    stated = [stated] * 3 if isinstance(stated, int | float) else stated
    if len(stated) != 3:
        raise ValueError(f"preprocessor_config.json: {name} is {stated}: must be three numbers")
    red, green, blue = (float(check(name, value, float)) for value in stated)
    return red, green, blue


def pick(kind: type, values: dict, part: str = "", /, **own: Any) -> Any:
    """Build a config dataclass from the entries of a JSON object that name its fields; others keep their defaults.

    Args:
        kind: the dataclass.
        values: the object.
        part: where the object is in the file, for errors.
        own: fields that are not read from it.

    Raises:
        ValueError: an entry's type or range is not the field's.
    """
    types = kinds(kind)
    named = {name: value for name, value in values.items() if name in types and value is not None and name not in own}
    return kind(**{name: check(name, value, types[name], part) for name, value in named.items()} | own)


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
