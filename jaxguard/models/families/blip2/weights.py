"""BLIP-2's config.json, the names of its parameters, and their sharding rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxguard.models import hf_config, weight_maps
from jaxguard.models.convert import Rule, Table, leading, linear, norm
from jaxguard.models.families.blip2.model import Blip2, Blip2Config
from jaxguard.models.families.blip2.qformer import QFormerConfig
from jaxguard.models.family import AxisRules, Family
from jaxguard.models.opt import OptConfig

AXES: AxisRules = (
    (r"^projector\.kernel$", ("fsdp", "tensor")),
    (r"^projector\.bias$", ("tensor",)),
    (r"^qformer\.queries$", ()),
    (r"^language\.position\.table$", (None, "fsdp")),
)


def read_config(config: dict, folder: Path) -> Blip2Config:
    """Read config.json and preprocessor_config.json.

    Raises:
        ValueError: the config asks for something unsupported.
    """
    text_values = config.get("text_config") or {}
    hf_config.check_kind("text_config", text_values, "opt")
    text = hf_config.pick(OptConfig, text_values, "text_config")
    if text_values.get("word_embed_proj_dim") not in (None, text.hidden_size):
        raise ValueError("text_config.word_embed_proj_dim must equal hidden_size: image vectors replace embeddings")
    if text_values.get("_remove_final_layer_norm"):
        raise ValueError("text_config._remove_final_layer_norm is not supported")
    hf_config.check_heads(text.hidden_size, text.num_attention_heads)
    vision = hf_config.vision(
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
    qformer = hf_config.pick(QFormerConfig, asked, "qformer_config", encoder_hidden_size=vision.hidden_size)
    if qformer.num_hidden_layers % qformer.cross_attention_frequency:
        raise ValueError(
            f"qformer_config.cross_attention_frequency {qformer.cross_attention_frequency} does not divide "
            f"num_hidden_layers {qformer.num_hidden_layers}"
        )
    hf_config.check_heads(qformer.hidden_size, qformer.num_attention_heads)
    hf_config.check_activations(text.activation_function, qformer.hidden_act)
    return hf_config.pick(
        Blip2Config, config, vision=vision, qformer=qformer, text=text, **hf_config.pixel_statistics(folder)
    )


def table(config: Blip2Config) -> Table:
    """Return the table of the layout that Salesforce publishes."""
    return Table(
        rules=(
            *weight_maps.eva("vision", "vision_model"),
            Rule("qformer.queries", "query_tokens", leading(1)),
            *_qformer("qformer", "qformer", config.qformer.cross_attention_frequency),
            *linear("projector", "language_projection"),
            *weight_maps.opt("language", "language_model.model.decoder", "language_model.lm_head"),
        )
    )


def _qformer(ours: str, theirs: str, frequency: int) -> tuple[Rule, ...]:
    layer, there = f"{ours}.layers", f"{theirs}.encoder.layer.{{layer}}"
    return (
        *norm(f"{ours}.norm", f"{theirs}.layernorm"),
        *_bert_attention(f"{layer}.attention", f"{there}.attention"),
        *_bert_attention(f"{ours}.cross", f"{there}.crossattention", every=frequency),
        *linear(f"{layer}.feed.up", f"{there}.intermediate_query.dense"),
        *linear(f"{layer}.feed.down", f"{there}.output_query.dense"),
        *norm(f"{layer}.feed.norm", f"{there}.output_query.LayerNorm"),
    )


def _bert_attention(ours: str, theirs: str, every: int = 1) -> tuple[Rule, ...]:
    return (
        *linear(f"{ours}.query", f"{theirs}.attention.query", every),
        *linear(f"{ours}.key", f"{theirs}.attention.key", every),
        *linear(f"{ours}.value", f"{theirs}.attention.value", every),
        *linear(f"{ours}.out", f"{theirs}.output.dense", every),
        *norm(f"{ours}.norm", f"{theirs}.output.LayerNorm", every),
    )


def processor_entries(config: Blip2Config) -> dict[str, Any]:
    """Return what `Blip2Processor` of `transformers` must know to write as many image tokens as there are queries."""
    return {"processor_class": "Blip2Processor", "num_query_tokens": config.num_query_tokens}


FAMILY = Family(Blip2, read_config, table, AXES, processor_entries)
