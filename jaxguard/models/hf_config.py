"""A checkpoint's JSON files to our configs. What a config asks for and we do not compute is refused, never ignored."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from jaxguard.errors import UserError
from jaxguard.models.families.blip2.model import Blip2Config
from jaxguard.models.families.blip2.qformer import QFormerConfig
from jaxguard.models.families.idefics.gated import GatedConfig
from jaxguard.models.families.idefics.model import IdeficsConfig
from jaxguard.models.families.idefics.resampler import ResamplerConfig
from jaxguard.models.families.llava.model import LlavaConfig
from jaxguard.models.layers import ACTIVATIONS
from jaxguard.models.llama import LlamaConfig
from jaxguard.models.opt import OptConfig
from jaxguard.models.rope import Rope
from jaxguard.models.vit import VitConfig


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: it is not one.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not an object")
    return content


def llava(config: dict, folder: Path) -> LlavaConfig:
    """Raises ValueError where the config asks for what is not supported."""
    text_values = config.get("text_config") or {}
    _check_kind("text_config", text_values, "llama")
    _check_kind("vision_config", config.get("vision_config") or {}, "clip_vision_model")
    tied = text_values.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
    text = _llama({**text_values, "tie_word_embeddings": tied})
    vision = _vision(config.get("vision_config") or {})
    layers = config.get("vision_feature_layer")
    own = _pick(
        LlavaConfig,
        {**config, "vision_feature_layer": tuple(layers) if isinstance(layers, list) else layers},
        vision=vision,
        text=text,
        **_pixel_statistics(folder),
    )
    _check_activations(own.projector_hidden_act)
    index = config.get("image_token_index", config.get("image_token_id", own.image_token_index))
    return dataclasses.replace(own, image_token_index=index)


def blip2(config: dict, folder: Path) -> Blip2Config:
    """Raises ValueError where the config asks for what is not supported."""
    text_values = config.get("text_config") or {}
    _check_kind("text_config", text_values, "opt")
    text = _pick(OptConfig, text_values)
    if text_values.get("word_embed_proj_dim") not in (None, text.hidden_size):
        raise ValueError("text_config.word_embed_proj_dim must equal hidden_size: image vectors stand among embeddings")
    if text_values.get("_remove_final_layer_norm"):
        raise ValueError("text_config._remove_final_layer_norm is not supported")
    _check_heads(text.hidden_size, text.num_attention_heads)
    vision = _vision(
        {"hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39, "num_attention_heads": 16}
        | {"patch_size": 14, "hidden_act": "gelu", "layer_norm_eps": 1e-6}
        | (config.get("vision_config") or {}),
        patch_bias=True,
        pre_norm=False,
        post_norm=True,
        fused=True,
    )
    asked = config.get("qformer_config") or {}
    if asked.get("use_qformer_text_input"):
        raise ValueError("qformer_config.use_qformer_text_input is not supported: prompts go to the language model")
    qformer = _pick(QFormerConfig, asked, encoder_hidden_size=vision.hidden_size)
    if qformer.num_hidden_layers % qformer.cross_attention_frequency:
        raise ValueError(
            f"qformer_config.cross_attention_frequency {qformer.cross_attention_frequency} does not divide "
            f"num_hidden_layers {qformer.num_hidden_layers}"
        )
    _check_heads(qformer.hidden_size, qformer.num_attention_heads)
    _check_activations(text.activation_function, qformer.hidden_act)
    own = _pick(Blip2Config, config, vision=vision, qformer=qformer, text=text, **_pixel_statistics(folder))
    index = config.get("image_token_index", config.get("image_token_id"))
    return dataclasses.replace(own, image_token_index=image_token(folder, own.image_token_index, index))


def idefics(config: dict, folder: Path) -> IdeficsConfig:
    """Raises ValueError where the config asks for what is not supported."""
    text = _llama(config)
    asked = dict(config.get("vision_config") or {})
    asked["hidden_size"] = asked.get("embed_dim", asked.get("hidden_size"))
    vision = _vision(
        {"intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16, "patch_size": 14}
        | {"hidden_act": "gelu"}
        | {name: value for name, value in asked.items() if value is not None}
    )
    resampler = _pick(ResamplerConfig, config.get("perceiver_config") or {}, width=vision.hidden_size)
    gated = _pick(GatedConfig, config, llama=text, vision_width=vision.hidden_size)
    if text.num_hidden_layers % gated.cross_layer_interval:
        raise ValueError(
            f"cross_layer_interval {gated.cross_layer_interval} does not divide "
            f"num_hidden_layers {text.num_hidden_layers}"
        )
    if gated.alpha_type not in ("float", "vector"):
        raise ValueError(f"alpha_type {gated.alpha_type!r} is not supported; use float, vector")
    end = config.get("eos_token_id", 2)
    index = config.get("image_token_index", config.get("image_token_id"))
    return IdeficsConfig(
        vision=vision,
        text=gated,
        resampler=resampler if config.get("use_resampler") else None,
        image_token_index=image_token(folder, text.vocab_size + 1, index),
        eos_token_id=end[0] if isinstance(end, list) else end,
        **_pixel_statistics(folder),
    )


def image_token(folder: Path, default: int, named: int | None = None) -> int:
    """The id of `<image>`: as the config names it, else from the tokenizer's files, else the default."""
    if named is not None:
        return named
    path = folder / "tokenizer.json"
    added = read_object(path).get("added_tokens", []) if path.is_file() else []
    return next((token["id"] for token in added if token.get("content") == "<image>"), default)


def _llama(values: dict) -> LlamaConfig:
    text = _pick(LlamaConfig, values, rope=Rope.read(values))
    _check_heads(text.hidden_size if values.get("head_dim") is None else 0, text.num_attention_heads)
    _check_heads(text.num_attention_heads, text.groups)
    _check_activations(text.hidden_act)
    return text


def _vision(values: dict, **differences: bool) -> VitConfig:
    vision = _pick(VitConfig, values, **differences)
    if vision.image_size % vision.patch_size:
        raise ValueError(f"vision patch_size {vision.patch_size} does not divide image_size {vision.image_size}")
    _check_heads(vision.hidden_size, vision.num_attention_heads)
    _check_activations(vision.hidden_act)
    return vision


def _pixel_statistics(folder: Path) -> dict[str, tuple]:
    path = folder / "preprocessor_config.json"
    values = read_object(path) if path.is_file() else {}
    return {name: tuple(values[name]) for name in ("image_mean", "image_std") if name in values}


def _pick(kind: type, values: dict, **own: Any) -> Any:
    """A config dataclass from those entries of a JSON object that it names; absent ones keep Hugging Face's default."""
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in names and value is not None} | own)


def _check_kind(part: str, values: dict, known: str) -> None:
    if values.get("model_type", known) != known:
        raise ValueError(f"{part}.model_type {values['model_type']!r} is not supported; use {known}")


def _check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError("attention heads do not divide the width")


def _check_activations(*names: str) -> None:
    for name in names:
        if name not in ACTIVATIONS:
            raise ValueError(f"activation {name!r} is not supported; use one of {', '.join(ACTIVATIONS)}")
