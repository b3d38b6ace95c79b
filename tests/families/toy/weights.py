"""The toy family's config and parameter names."""

from __future__ import annotations

from pathlib import Path

from jaxguard.models import hf_config, weight_maps
from jaxguard.models.convert import Rule, Table, linear
from jaxguard.models.family import Family
from toy.model import TowerConfig, Toy, ToyConfig


def read_config(config: dict, folder: Path) -> ToyConfig:
    tower = config["vision_config"]
    return ToyConfig(
        vision=TowerConfig(tuple(tower["image_size"]), tower["patch_size"], tower["hidden_size"]),
        text=hf_config.llama(config["text_config"]),
        image_token_index=config["image_token_index"],
        **hf_config.pixel_statistics(folder),
    )


def table(config: ToyConfig) -> Table:
    return Table(
        rules=(
            *linear("vision.patch", "tower.patch"),
            Rule("vision.position", "tower.position"),
            *linear("projector", "projector"),
            *weight_maps.llama("language", "model", "lm_head"),
        )
    )


AXES = ((r"^projector\.kernel$", ("fsdp", "tensor")), (r"^projector\.bias$", ("tensor",)))
FAMILY = Family(Toy, read_config, table, AXES)
