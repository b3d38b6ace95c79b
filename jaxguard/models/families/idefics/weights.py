"""IDEFICS's config.json, the names of its parameters, and their sharding rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxguard.models import hf_config, weight_maps
from jaxguard.models.convert import SAME, Rule, Table, leading, linear, norm
from jaxguard.models.families.idefics.gated import GatedConfig
from jaxguard.models.families.idefics.model import Idefics, IdeficsConfig
from jaxguard.models.families.idefics.resampler import ResamplerConfig
from jaxguard.models.family import AxisRules, Family

AXES: AxisRules = (
    (r"^resampler\.latents$", ()),
    (r"\.(attention|feed)_gate$", ()),
    (r"\.additional_(embedding\.table|head\.kernel)$", ()),
)


def read_config(config: dict, folder: Path) -> IdeficsConfig:
    """Read config.json and preprocessor_config.json.

    Raises:
        ValueError: the config asks for something unsupported.
    """
    text = hf_config.llama(config, "")
    asked = dict(config.get("vision_config") or {})
    asked["hidden_size"] = asked.get("embed_dim", asked.get("hidden_size"))
    vision = hf_config.vision(
        {"intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16, "patch_size": 14}
        | {"hidden_act": "gelu"}
        | {name: value for name, value in asked.items() if value is not None}
    )
    resampler = hf_config.pick(
        ResamplerConfig, config.get("perceiver_config") or {}, "perceiver_config", width=vision.hidden_size
    )
    gated = hf_config.pick(GatedConfig, config, llama=text, vision_width=vision.hidden_size)
    if text.num_hidden_layers % gated.cross_layer_interval:
        raise ValueError(
            f"cross_layer_interval {gated.cross_layer_interval} does not divide "
            f"num_hidden_layers {text.num_hidden_layers}"
        )
    if gated.alpha_type not in ("float", "vector"):
        raise ValueError(f"alpha_type {gated.alpha_type!r} is not supported; use float, vector")
    end = config.get("eos_token_id", 2)
    return IdeficsConfig(
        vision=vision,
        text=gated,
        resampler=resampler if config.get("use_resampler") else None,
        image_token_index=config.get("image_token_index", text.vocab_size + 1),
        eos_token_id=end[0] if isinstance(end, list) else end,
        **hf_config.pixel_statistics(folder),
    )


def shallow(values: dict[str, Any], layers: int) -> dict[str, Any]:
    """Return config.json with `layers` tower layers and `layers` groups of decoder layers."""
    vision = {**values.get("vision_config", {}), "num_hidden_layers": layers}
    return {**values, "num_hidden_layers": layers * values.get("cross_layer_interval", 1), "vision_config": vision}


def table(config: IdeficsConfig) -> Table:
    """Return the table of the layout that HuggingFaceM4 publishes."""
    return Table(
        rules=(
            *weight_maps.clip("vision", "model.vision_model"),
            *_resampler("resampler", "model.perceiver_resampler"),
            *weight_maps.llama("language", "model", "lm_head"),
            *_gated("language.cross", "model.gated_cross_attn_layers", vector=config.text.alpha_type == "vector"),
            Rule("language.additional_embedding.table", "model.embed_tokens.additional_embedding.weight"),
            *linear("language.additional_head", "lm_head.additional_fc"),
        )
    )


def _gated(ours: str, theirs: str, *, vector: bool) -> tuple[Rule, ...]:
    there = f"{theirs}.{{layer}}"
    gates = leading(2) if vector else SAME
    return (
        *norm(f"{ours}.norm1", f"{there}.input_layernorm"),
        *weight_maps.projections(ours, f"{there}.cross_attn", out="o_proj"),
        *norm(f"{ours}.query_norm", f"{there}.cross_attn.q_layer_norm"),
        *norm(f"{ours}.key_norm", f"{there}.cross_attn.k_layer_norm"),
        *norm(f"{ours}.norm2", f"{there}.post_attention_layernorm"),
        *weight_maps.gated_feed_forward(ours, f"{there}.mlp"),
        Rule(f"{ours}.attention_gate", f"{there}.alpha_cross_attn", gates),
        Rule(f"{ours}.feed_gate", f"{there}.alpha_dense", gates),
    )


def _resampler(ours: str, theirs: str) -> tuple[Rule, ...]:
    layer, there = f"{ours}.layers", f"{theirs}.blocks.{{layer}}"
    return (
        Rule(f"{ours}.latents", f"{theirs}.latents"),
        *norm(f"{layer}.context_norm", f"{there}.0.context_layer_norm"),
        *norm(f"{layer}.latent_norm", f"{there}.0.latents_layer_norm"),
        *norm(f"{layer}.query_norm", f"{there}.0.q_layer_norm"),
        *norm(f"{layer}.key_norm", f"{there}.0.k_layer_norm"),
        *weight_maps.projections(layer, f"{there}.0", out="output_proj"),
        *norm(f"{layer}.feed_norm", f"{there}.1.ln"),
        *linear(f"{layer}.up", f"{there}.1.fc"),
        *linear(f"{layer}.down", f"{there}.1.c_proj"),
        *norm(f"{ours}.norm", f"{theirs}.layer_norm"),
    )


FAMILY = Family(Idefics, read_config, table, AXES, lambda config: {"processor_class": "IdeficsProcessor"}, shallow)
