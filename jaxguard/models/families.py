"""Which classes and tables a checkpoint's `model_type` stands for, and a model's parameters as one flat dictionary.

A model's parameters are a dictionary from dotted path ("language.layers.query.kernel") to array. Sharding rules, the
trainable filter, conversion and checkpoints all speak of these paths.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxguard.errors import UserError
from jaxguard.models.clip import ClipConfig
from jaxguard.models.convert import LLAVA, Table
from jaxguard.models.layers import ACTIVATIONS
from jaxguard.models.llama import LlamaConfig
from jaxguard.models.llava import Llava, LlavaConfig

Parameters = dict[str, jax.Array]


@dataclass(frozen=True)
class Family:
    """One way of fusing vision and language."""

    read_config: Callable[[dict, dict], Any]
    """(config.json, preprocessor_config.json) -> the module's config."""
    module: Callable[..., nnx.Module]
    table: Table


@dataclass(frozen=True)
class Architecture:
    """A model without its weights: how to build it, and the abstract arrays of its parameters."""

    family: Family
    config: Any
    graph: nnx.GraphDef
    shapes: dict[str, jax.ShapeDtypeStruct]

    def initial(self, seed: int) -> Parameters:
        """Fresh weights; to be jitted with output shardings."""
        model = self.family.module(self.config, dtype=jnp.float32, remat=False, rngs=nnx.Rngs(seed))
        return {_dotted(path): leaf[...] for path, leaf in nnx.to_flat_state(nnx.split(model)[1])}


def architecture(folder: Path, *, dtype: str, remat: bool) -> Architecture:
    """Read a checkpoint folder's configuration.

    Args:
        folder: holds config.json and, for other pixel statistics than CLIP's, preprocessor_config.json.
        dtype: compute type of the activations.
        remat: recompute layers in the backward pass.

    Raises:
        UserError: unreadable files, another model type than ours, or a shape that does not work.
    """
    config = _read_json(folder / "config.json")
    preprocessor = folder / "preprocessor_config.json"
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise UserError(f"{folder / 'config.json'}: model_type {kind!r} is not supported; use {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    try:
        resolved = family.read_config(config, _read_json(preprocessor) if preprocessor.is_file() else {})
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / 'config.json'}: {error}") from error

    def build() -> nnx.Module:
        return family.module(resolved, dtype=jnp.dtype(dtype), remat=remat, rngs=nnx.Rngs(0))

    graph, state = nnx.split(nnx.eval_shape(build))
    shapes = {_dotted(path): jax.ShapeDtypeStruct(leaf.shape, jnp.float32) for path, leaf in nnx.to_flat_state(state)}
    return Architecture(family, resolved, graph, shapes)


def merge(graph: nnx.GraphDef, *parameters: Parameters) -> Any:
    """The module with these parameters, which together must be all of them."""
    flat = [(tuple(path.split(".")), nnx.Param(value)) for part in parameters for path, value in sorted(part.items())]
    return nnx.merge(graph, nnx.from_flat_state(flat))


def _dotted(path: tuple) -> str:
    return ".".join(map(str, path))


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not an object")
    return content


def _pick(kind: type, values: dict) -> Any:
    """A config dataclass from those entries of a JSON object that it names; absent ones keep Hugging Face's default."""
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in names and value is not None})


def _llava_config(config: dict, preprocessor: dict) -> LlavaConfig:
    text_values = config.get("text_config") or {}
    rope = text_values.get("rope_parameters") or text_values.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ValueError(f"rope type {rope.get('rope_type', rope.get('type'))!r} is not supported")
    tied = text_values.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
    theta = rope.get("rope_theta", text_values.get("rope_theta", 10000.0))
    text = _pick(LlamaConfig, {**text_values, "rope_theta": theta, "tie_word_embeddings": tied})
    vision = _pick(ClipConfig, config.get("vision_config") or {})
    if vision.image_size % vision.patch_size:
        raise ValueError(f"vision patch_size {vision.patch_size} does not divide image_size {vision.image_size}")
    if vision.hidden_size % vision.num_attention_heads or text.num_attention_heads % text.groups:
        raise ValueError("attention heads do not divide the width")
    own = _pick(LlavaConfig, {**config, "vision": vision, "text": text})
    statistics = {name: tuple(preprocessor[name]) for name in ("image_mean", "image_std") if name in preprocessor}
    for activation in (vision.hidden_act, text.hidden_act, own.projector_hidden_act):
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r} is not supported; use one of {', '.join(ACTIVATIONS)}")
    index = config.get("image_token_index", config.get("image_token_id", own.image_token_index))
    return dataclasses.replace(own, image_token_index=index, **statistics)


FAMILIES: dict[str, Family] = {"llava": Family(_llava_config, Llava, LLAVA)}
