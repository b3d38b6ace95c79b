"""Hugging Face names of every parameter: one table per tower, and per family how they stand together."""

from __future__ import annotations

from jaxguard.models.convert import CONVOLUTION, SAME, Rule, Table, leading, linear, norm
from jaxguard.models.families.blip2.model import Blip2Config
from jaxguard.models.families.idefics.model import IdeficsConfig
from jaxguard.models.families.llava.model import LlavaConfig


def llava(config: LlavaConfig) -> Table:
    """As llava-hf publishes it; newer `transformers` releases write `model.vision_tower.` and `lm_head.`."""
    return Table(
        rules=(
            *_clip("vision", "vision_tower.vision_model"),
            *linear("projector.first", "multi_modal_projector.linear_1"),
            *linear("projector.second", "multi_modal_projector.linear_2"),
            *_llama("language", "language_model.model", "language_model.lm_head"),
        ),
        renames=(
            (r"^model\.(vision_tower|multi_modal_projector)\.", r"\1."),
            (r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model."),
            (r"^model\.language_model\.", "language_model.model."),
            (r"^lm_head\.", "language_model.lm_head."),
        ),
        modules=(
            (r"^vision_tower\.vision_model\.", "model.vision_tower."),
            (r"^multi_modal_projector\.", "model.multi_modal_projector."),
            (r"^language_model\.model\.", "model.language_model."),
            (r"^language_model\.lm_head", "lm_head"),
        ),
    )


def blip2(config: Blip2Config) -> Table:
    """As Salesforce publishes it."""
    return Table(
        rules=(
            *_eva("vision", "vision_model"),
            Rule("qformer.queries", "query_tokens", leading(1)),
            *_qformer("qformer", "qformer", config.qformer.cross_attention_frequency),
            *linear("projector", "language_projection"),
            *_opt("language", "language_model.model.decoder", "language_model.lm_head"),
        )
    )


def idefics(config: IdeficsConfig) -> Table:
    """As HuggingFaceM4 publishes it."""
    return Table(
        rules=(
            *_clip("vision", "model.vision_model"),
            *_resampler("resampler", "model.perceiver_resampler"),
            *_llama("language", "model", "lm_head"),
            *_gated("language.cross", "model.gated_cross_attn_layers", vector=config.text.alpha_type == "vector"),
            Rule("language.additional_embedding.table", "model.embed_tokens.additional_embedding.weight"),
            *linear("language.additional_head", "lm_head.additional_fc"),
        )
    )


def _clip(ours: str, theirs: str) -> tuple[Rule, ...]:
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


def _eva(ours: str, theirs: str) -> tuple[Rule, ...]:
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


def _llama(ours: str, theirs: str, head: str) -> tuple[Rule, ...]:
    layer, there = f"{ours}.layers", f"{theirs}.layers.{{layer}}"
    return (
        Rule(f"{ours}.embedding.table", f"{theirs}.embed_tokens.weight"),
        *norm(f"{layer}.norm1", f"{there}.input_layernorm"),
        *_projections(layer, f"{there}.self_attn", out="o_proj"),
        *norm(f"{layer}.norm2", f"{there}.post_attention_layernorm"),
        *_gated_feed_forward(layer, f"{there}.mlp"),
        *norm(f"{ours}.norm", f"{theirs}.norm"),
        *linear(f"{ours}.head", head),
    )


def _gated(ours: str, theirs: str, *, vector: bool) -> tuple[Rule, ...]:
    there = f"{theirs}.{{layer}}"
    gates = leading(2) if vector else SAME
    return (
        *norm(f"{ours}.norm1", f"{there}.input_layernorm"),
        *_projections(ours, f"{there}.cross_attn", out="o_proj"),
        *norm(f"{ours}.query_norm", f"{there}.cross_attn.q_layer_norm"),
        *norm(f"{ours}.key_norm", f"{there}.cross_attn.k_layer_norm"),
        *norm(f"{ours}.norm2", f"{there}.post_attention_layernorm"),
        *_gated_feed_forward(ours, f"{there}.mlp"),
        Rule(f"{ours}.attention_gate", f"{there}.alpha_cross_attn", gates),
        Rule(f"{ours}.feed_gate", f"{there}.alpha_dense", gates),
    )


def _opt(ours: str, theirs: str, head: str) -> tuple[Rule, ...]:
    layer, there = f"{ours}.layers", f"{theirs}.layers.{{layer}}"
    return (
        Rule(f"{ours}.embedding.table", f"{theirs}.embed_tokens.weight"),
        Rule(f"{ours}.position.table", f"{theirs}.embed_positions.weight"),
        *norm(f"{layer}.norm1", f"{there}.self_attn_layer_norm"),
        *_projections(layer, f"{there}.self_attn", out="out_proj"),
        *norm(f"{layer}.norm2", f"{there}.final_layer_norm"),
        *linear(f"{layer}.up", f"{there}.fc1"),
        *linear(f"{layer}.down", f"{there}.fc2"),
        *norm(f"{ours}.norm", f"{theirs}.final_layer_norm"),
        *linear(f"{ours}.head", head),
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


def _resampler(ours: str, theirs: str) -> tuple[Rule, ...]:
    layer, there = f"{ours}.layers", f"{theirs}.blocks.{{layer}}"
    return (
        Rule(f"{ours}.latents", f"{theirs}.latents"),
        *norm(f"{layer}.context_norm", f"{there}.0.context_layer_norm"),
        *norm(f"{layer}.latent_norm", f"{there}.0.latents_layer_norm"),
        *norm(f"{layer}.query_norm", f"{there}.0.q_layer_norm"),
        *norm(f"{layer}.key_norm", f"{there}.0.k_layer_norm"),
        *_projections(layer, f"{there}.0", out="output_proj"),
        *norm(f"{layer}.feed_norm", f"{there}.1.ln"),
        *linear(f"{layer}.up", f"{there}.1.fc"),
        *linear(f"{layer}.down", f"{there}.1.c_proj"),
        *norm(f"{ours}.norm", f"{theirs}.layer_norm"),
    )


def _projections(ours: str, theirs: str, *, out: str) -> tuple[Rule, ...]:
    return (
        *linear(f"{ours}.query", f"{theirs}.q_proj"),
        *linear(f"{ours}.key", f"{theirs}.k_proj"),
        *linear(f"{ours}.value", f"{theirs}.v_proj"),
        *linear(f"{ours}.out", f"{theirs}.{out}"),
    )


def _gated_feed_forward(ours: str, theirs: str) -> tuple[Rule, ...]:
    return (
        *linear(f"{ours}.gate", f"{theirs}.gate_proj"),
        *linear(f"{ours}.up", f"{theirs}.up_proj"),
        *linear(f"{ours}.down", f"{theirs}.down_proj"),
    )
