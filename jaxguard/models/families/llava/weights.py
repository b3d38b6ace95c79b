"""LLaVA's config.json and the names of its parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxguard.models import hf_config, weight_maps
from jaxguard.models.convert import Table, linear
from jaxguard.models.families.llava.flops import step_flops
from jaxguard.models.families.llava.model import Llava, LlavaConfig
from jaxguard.models.family import Family
from jaxguard.models.values import check


def read_config(config: dict, folder: Path) -> LlavaConfig:
    """Read config.json and preprocessor_config.json.

    Raises:
        ValueError: the config asks for something unsupported.
    """
    text_values = config.get("text_config") or {}
    hf_config.check_kind("text_config", text_values, "llama")
    hf_config.check_kind("vision_config", config.get("vision_config") or {}, "clip_vision_model")
    tied = any(
        check("tie_word_embeddings", part.get("tie_word_embeddings") or False, bool) for part in (config, text_values)
    )
    text = hf_config.llama({**text_values, "tie_word_embeddings": tied})
    vision = hf_config.vision(config.get("vision_config") or {})
    layers = config.get("vision_feature_layer")
    own = hf_config.pick(
        LlavaConfig,
        {**config, "vision_feature_layer": tuple(layers) if isinstance(layers, list) else layers},
        vision=vision,
        text=text,
        **hf_config.pixel_statistics(folder),
    )
    hf_config.check_activations(own.projector_hidden_act)
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


def table(config: LlavaConfig) -> Table:
    """Return the table of llava-hf's layout; newer `transformers` write `model.vision_tower.` and `lm_head.`."""
    return Table(
        rules=(
            *weight_maps.clip("vision", "vision_tower.vision_model"),
            *linear("projector.first", "multi_modal_projector.linear_1"),
            *linear("projector.second", "multi_modal_projector.linear_2"),
            *weight_maps.llama("language", "language_model.model", "language_model.lm_head"),
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


def processor_entries(config: LlavaConfig) -> dict[str, Any]:
    """Return what `LlavaProcessor` of `transformers` must know to repeat the image token as often as the model does."""
    return {
        "processor_class": "LlavaProcessor",
        "patch_size": config.vision.patch_size,
        "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
    }


FAMILY = Family(Llava, read_config, table, processor=processor_entries, flops=step_flops)
