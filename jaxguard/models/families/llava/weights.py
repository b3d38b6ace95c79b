"""LLaVA's config.json and the names of its parameters."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jaxguard.models import hf_config, towers, weight_maps
from jaxguard.models.convert import Table, linear
from jaxguard.models.families.llava.flops import step_flops
from jaxguard.models.families.llava.model import Llava, LlavaConfig
from jaxguard.models.family import Family
from jaxguard.models.values import check, whole
from jaxguard.models.vit import VitConfig


def read_config(config: dict, folder: Path) -> LlavaConfig:
    """Read config.json and preprocessor_config.json.

    Raises:
        ValueError: the config asks for something unsupported.
    """
    kind, vision_values = towers.tower(config)
    decoder, text_values = towers.decoder(config)
    name = "tie_word_embeddings"
    flags = [check(name, part.get(name) or False, bool) for part in (config, text_values)]
    text = hf_config.llama({**text_values, name: any(flags)}, **_DECODERS[decoder])
    vision = _vision(kind, vision_values)
    layers = config.get("vision_feature_layer")
    own = hf_config.pick(
        LlavaConfig,
        {**config, "vision_feature_layer": tuple(layers) if isinstance(layers, list) else layers},
        vision=vision,
        text=text,
        vision_kind=kind,
        **hf_config.pixel_statistics(folder),
    )
    hf_config.check_activations(own.projector_hidden_act)
    if not vision.class_token and own.vision_feature_select_strategy == "default":
        raise ValueError(
            f"vision_feature_select_strategy default leaves out the class token, which a {kind} has not; use full"
        )
    if own.vision_feature_select_strategy not in ("default", "full"):
        raise ValueError(
            f"vision_feature_select_strategy {own.vision_feature_select_strategy!r} is not supported; use default, full"
        )
    count = vision.num_hidden_layers
    for layer in own.feature_layers:
        if type(layer) is not int or not -count - 1 <= layer <= count:
            raise ValueError(
                f"vision_feature_layer {layer!r} is outside of -{count + 1} to {count}, the tower's layers"
            )
    if not own.feature_layers:
        raise ValueError("vision_feature_layer is empty; name at least one layer")
    return own


_DECODERS: dict[str, dict[str, bool]] = {
    "llama": {},
    "mistral": {"attention_bias": False, "mlp_bias": False},
    "qwen2": {"attention_bias": True, "out_bias": False, "mlp_bias": False},
}
"""Where decoders differ from Llama, whatever their configs say."""


def _vision(kind: str, values: dict[str, Any]) -> VitConfig:
    """Read the tower's config. Raises ValueError if it asks for something unsupported."""
    differences: dict[str, bool | int] = {"patch_bias": False, "pre_norm": True, "post_norm": False, "fused": False}
    differences |= {"qkv_bias": True, "class_token": True, "registers": 0, "layer_scale": False}
    if kind != towers.CLIP:
        differences |= {"patch_bias": True, "pre_norm": False}
    if kind == towers.SIGLIP:
        differences["class_token"] = False
    if kind in (towers.DINOV2, towers.REGISTERS):
        if values.get("use_swiglu_ffn"):
            raise ValueError("vision_config.use_swiglu_ffn is not supported")
        width, ratio = (whole(values, name, default) for name, default in (("hidden_size", 768), ("mlp_ratio", 4)))
        values = values | {"intermediate_size": width * ratio}
        differences["qkv_bias"] = check("qkv_bias", values.get("qkv_bias", True), bool, "vision_config")
        differences |= {"layer_scale": True, "registers": towers.extras(kind, values) - 1}
    return hf_config.vision(values, **differences)


_TOWERS = {
    towers.CLIP: weight_maps.clip("vision", "vision_tower.vision_model"),
    towers.SIGLIP: weight_maps.siglip("vision", "vision_tower.vision_model"),
    towers.DINOV2: weight_maps.dinov2("vision", "vision_tower"),
    towers.REGISTERS: weight_maps.dinov2("vision", "vision_tower"),
}
_DINOV2 = {
    "q_proj": "attention.query",
    "k_proj": "attention.key",
    "v_proj": "attention.value",
    "o_proj": "output.dense",
}
_DINOV2_NAMES = tuple(
    (rf"(vision_tower\.encoder\.layer\.\d+\.attention)\.{new}\.", rf"\1.{old}.") for new, old in _DINOV2.items()
)
_DINOV2_MODULES = tuple(
    (rf"(vision_tower\.encoder\.layer\.\d+\.attention)\.{re.escape(old)}$", rf"\1.{new}")
    for new, old in _DINOV2.items()
)
"""Attention's matrices have other names in a live model of `transformers` than on disk."""
_CARRIED = {
    towers.SIGLIP: r"^vision_tower\.vision_model\.head\.",
    towers.DINOV2: r"^vision_tower\.embeddings\.mask_token$",
    towers.REGISTERS: r"^vision_tower\.embeddings\.mask_token$",
}
"""What a tower's checkpoint holds besides: SigLIP's pooling, DINOv2's token of masked patches."""


def table(config: LlavaConfig) -> Table:
    """Return the table of llava-hf's layout; newer `transformers` write `model.vision_tower.` and `lm_head.`."""
    dinov2 = config.vision_kind in (towers.DINOV2, towers.REGISTERS)
    tower = _DINOV2_NAMES if dinov2 else ((r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model."),)
    live = _DINOV2_MODULES if dinov2 else ((r"^vision_tower\.vision_model\.", "vision_tower."),)
    return Table(
        rules=(
            *_TOWERS[config.vision_kind],
            *linear("projector.first", "multi_modal_projector.linear_1"),
            *linear("projector.second", "multi_modal_projector.linear_2"),
            *weight_maps.llama("language", "language_model.model", "language_model.lm_head"),
        ),
        renames=(
            (r"^model\.(vision_tower|multi_modal_projector)\.", r"\1."),
            *tower,
            (r"^model\.language_model\.", "language_model.model."),
            (r"^lm_head\.", "language_model.lm_head."),
        ),
        modules=(
            *live,
            (r"^(vision_tower|multi_modal_projector)\.", r"model.\1."),
            (r"^language_model\.model\.", "model.language_model."),
            (r"^language_model\.lm_head", "lm_head"),
        ),
        carried=_CARRIED.get(config.vision_kind),
    )


def processor_entries(config: LlavaConfig) -> dict[str, Any]:
    """Return what `LlavaProcessor` of `transformers` must know to repeat the image token as often as the model does."""
    return {
        "processor_class": "LlavaProcessor",
        "patch_size": config.vision.patch_size,
        "num_additional_image_tokens": config.vision.extras,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
    }


FAMILY = Family(Llava, read_config, table, processor=processor_entries, flops=step_flops)
