"""Conversion rules of towers and decoders that families share: (our path, Hugging Face's path) -> rules."""

from __future__ import annotations

from jaxguard.models.convert import CONVOLUTION, Rule, leading, linear, norm


def clip(ours: str, theirs: str) -> tuple[Rule, ...]:
    """Return the rules of a CLIP tower."""
    layer, there = f"{ours}.layers", f"{theirs}.encoder.layers.{{layer}}"
    return (
        Rule(f"{ours}.class_token", f"{theirs}.embeddings.class_embedding"),
        Rule(f"{ours}.patch.kernel", f"{theirs}.embeddings.patch_embedding.weight", CONVOLUTION),
        Rule(f"{ours}.position", f"{theirs}.embeddings.position_embedding.weight"),
        *norm(f"{ours}.norm", f"{theirs}.pre_layrnorm"),
        *_block(layer, there),
        *linear(f"{layer}.query", f"{there}.self_attn.q_proj"),
        *linear(f"{layer}.key", f"{there}.self_attn.k_proj"),
        *linear(f"{layer}.value", f"{there}.self_attn.v_proj"),
        *linear(f"{layer}.out", f"{there}.self_attn.out_proj"),
        *norm(f"{ours}.post_norm", f"{theirs}.post_layernorm"),
    )


def siglip(ours: str, theirs: str) -> tuple[Rule, ...]:
    """Return the rules of a SigLIP tower: CLIP's, without what it lacks."""
    return (*clip(ours, theirs), Rule(f"{ours}.patch.bias", f"{theirs}.embeddings.patch_embedding.bias"))


def dinov2(ours: str, theirs: str) -> tuple[Rule, ...]:
    """Return the rules of a DINOv2 tower, with or without registers."""
    layer, there = f"{ours}.layers", f"{theirs}.encoder.layer.{{layer}}"
    return (
        Rule(f"{ours}.class_token", f"{theirs}.embeddings.cls_token", leading(2)),
        Rule(f"{ours}.registers", f"{theirs}.embeddings.register_tokens", leading(1)),
        Rule(f"{ours}.patch.kernel", f"{theirs}.embeddings.patch_embeddings.projection.weight", CONVOLUTION),
        Rule(f"{ours}.patch.bias", f"{theirs}.embeddings.patch_embeddings.projection.bias"),
        Rule(f"{ours}.position", f"{theirs}.embeddings.position_embeddings", leading(1)),
        *norm(f"{layer}.norm1", f"{there}.norm1"),
        *norm(f"{layer}.norm2", f"{there}.norm2"),
        *linear(f"{layer}.query", f"{there}.attention.attention.query"),
        *linear(f"{layer}.key", f"{there}.attention.attention.key"),
        *linear(f"{layer}.value", f"{there}.attention.attention.value"),
        *linear(f"{layer}.out", f"{there}.attention.output.dense"),
        *linear(f"{layer}.up", f"{there}.mlp.fc1"),
        *linear(f"{layer}.down", f"{there}.mlp.fc2"),
        Rule(f"{layer}.scale1", f"{there}.layer_scale1.lambda1"),
        Rule(f"{layer}.scale2", f"{there}.layer_scale2.lambda1"),
        *norm(f"{ours}.post_norm", f"{theirs}.layernorm"),
    )


def eva(ours: str, theirs: str) -> tuple[Rule, ...]:
    """Return the rules of an EVA tower."""
    layer, there = f"{ours}.layers", f"{theirs}.encoder.layers.{{layer}}"
    return (
        Rule(f"{ours}.class_token", f"{theirs}.embeddings.class_embedding", leading(2)),
        Rule(f"{ours}.patch.kernel", f"{theirs}.embeddings.patch_embedding.weight", CONVOLUTION),
        Rule(f"{ours}.patch.bias", f"{theirs}.embeddings.patch_embedding.bias"),
        Rule(f"{ours}.position", f"{theirs}.embeddings.position_embedding", leading(1)),
        *_block(layer, there),
        *linear(f"{layer}.qkv", f"{there}.self_attn.qkv"),
        *linear(f"{layer}.out", f"{there}.self_attn.projection"),
        *norm(f"{ours}.post_norm", f"{theirs}.post_layernorm"),
    )


def _block(layer: str, there: str) -> tuple[Rule, ...]:
    return (
        *norm(f"{layer}.norm1", f"{there}.layer_norm1"),
        *norm(f"{layer}.norm2", f"{there}.layer_norm2"),
        *linear(f"{layer}.up", f"{there}.mlp.fc1"),
        *linear(f"{layer}.down", f"{there}.mlp.fc2"),
    )


def llama(ours: str, theirs: str, head: str) -> tuple[Rule, ...]:
    """Return the rules of a Llama decoder; `head` is the name of its output head."""
    layer, there = f"{ours}.layers", f"{theirs}.layers.{{layer}}"
    return (
        Rule(f"{ours}.embedding.table", f"{theirs}.embed_tokens.weight"),
        *norm(f"{layer}.norm1", f"{there}.input_layernorm"),
        *projections(layer, f"{there}.self_attn", out="o_proj"),
        *norm(f"{layer}.norm2", f"{there}.post_attention_layernorm"),
        *gated_feed_forward(layer, f"{there}.mlp"),
        *norm(f"{ours}.norm", f"{theirs}.norm"),
        *linear(f"{ours}.head", head),
    )


def opt(ours: str, theirs: str, head: str) -> tuple[Rule, ...]:
    """Return the rules of an OPT decoder; `head` is the name of its output head."""
    layer, there = f"{ours}.layers", f"{theirs}.layers.{{layer}}"
    return (
        Rule(f"{ours}.embedding.table", f"{theirs}.embed_tokens.weight"),
        Rule(f"{ours}.position.table", f"{theirs}.embed_positions.weight"),
        *norm(f"{layer}.norm1", f"{there}.self_attn_layer_norm"),
        *projections(layer, f"{there}.self_attn", out="out_proj"),
        *norm(f"{layer}.norm2", f"{there}.final_layer_norm"),
        *linear(f"{layer}.up", f"{there}.fc1"),
        *linear(f"{layer}.down", f"{there}.fc2"),
        *norm(f"{ours}.norm", f"{theirs}.final_layer_norm"),
        *linear(f"{ours}.head", head),
    )


def projections(ours: str, theirs: str, *, out: str) -> tuple[Rule, ...]:
    """Return the rules of an attention block's four matrices."""
    return (
        *linear(f"{ours}.query", f"{theirs}.q_proj"),
        *linear(f"{ours}.key", f"{theirs}.k_proj"),
        *linear(f"{ours}.value", f"{theirs}.v_proj"),
        *linear(f"{ours}.out", f"{theirs}.{out}"),
    )


def gated_feed_forward(ours: str, theirs: str) -> tuple[Rule, ...]:
    """Return the rules of a gated feed-forward's three matrices."""
    return (
        *linear(f"{ours}.gate", f"{theirs}.gate_proj"),
        *linear(f"{ours}.up", f"{theirs}.up_proj"),
        *linear(f"{ours}.down", f"{theirs}.down_proj"),
    )
