"""How long a train step takes to trace and compile, beside the same step of a model of two layers. No weights."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxguard.batch import Batch
from jaxguard.bench.timing import publish, ratio
from jaxguard.config import Config, to_dict
from jaxguard.models import zoo
from jaxguard.models.families import Architecture, architecture
from jaxguard.models.reading import read_object
from jaxguard.report.tables import Column
from jaxguard.train import sharding
from jaxguard.train.setup import CompiledStep, Model, prepare
from jaxguard.train.state import partition

LAYERS = 2


def shallow(values: dict[str, Any]) -> dict[str, Any]:
    """A config.json with decoder and tower of `LAYERS` layers (IDEFICS: as many groups of its cross-attention)."""
    vision = {**values.get("vision_config", {}), "num_hidden_layers": LAYERS}
    if values["model_type"] == "idefics":
        return {**values, "num_hidden_layers": LAYERS * values.get("cross_layer_interval", 1), "vision_config": vision}
    text = {**values.get("text_config", {}), "num_hidden_layers": LAYERS}
    return {**values, "text_config": text, "vision_config": vision}


def described(config: Config, folder: Path) -> Model:
    """The model of a folder that need not hold more than config.json, its parameters as shapes."""
    lora = config.model.lora if config.model.trainable == "lora" else None
    arch = architecture(folder, dtype=config.model.dtype, remat=config.model.remat, lora=lora)
    mesh = sharding.make_mesh(config.mesh)
    trainable, _ = partition(arch.shapes, config.model.trainable)
    stored = {path: jnp.dtype("float32" if path in trainable else config.model.dtype) for path in arch.shapes}
    parameters: Any = {path: jax.ShapeDtypeStruct(leaf.shape, stored[path]) for path, leaf in arch.shapes.items()}
    return Model(folder, arch, mesh, sharding.parameter_shardings(arch.shapes, mesh), parameters)


def described_batch(config: Config, arch: Architecture) -> Batch:
    """A batch of the configuration's size, as shapes."""
    rows, length, views = config.train.batch_size, config.data.length, config.objective.views
    vision, kept = arch.config.vision, None
    side = vision.image_size
    if views == 2 and config.view.mask_fill == "drop":
        masked = round(config.view.mask_share * (side // config.view.patch_size) ** 2)
        times = config.view.patch_size // vision.patch_size
        kept = _shape(np.int32, rows, 1, vision.patches - masked * times**2)
    tokens = _shape(np.int32, rows, length)
    images = _shape(np.uint8, rows, views, 1, side, side, 3)
    return Batch(images, tokens, tokens, tokens, _shape(bool, rows, length), _shape(np.int32, rows), kept)


def _shape(dtype: Any, *shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def compiled_step(config: Config, folder: Path) -> CompiledStep:
    """The train step of the model that config.json in `folder` describes."""
    model = described(config, folder)
    setup, _ = prepare(config, model)
    return CompiledStep(config, setup, 2, described_batch(config, model.architecture))


def bench_compile(config: Config, out: Path) -> list[dict[str, Any]]:
    """Time both; compile.md and compile.json go to `out`. Returns the rows.

    Raises:
        UserError: the model or these sizes are not possible.
    """
    whole = zoo.resolve(config.model.path)
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as scratch:
        values = shallow(read_object(whole / "config.json"))
        (Path(scratch) / "config.json").write_text(json.dumps(values))
        for name, folder in ((f"{LAYERS} layers", Path(scratch)), ("all layers", whole)):
            print(f"compiling {name}", file=sys.stderr)
            began = time.perf_counter()
            step = compiled_step(config, folder)
            seconds = time.perf_counter() - began
            rows.append({"case": name, "seconds": seconds, "instructions": instructions(step)})
    for row in rows:
        row |= {f"{key}_ratio": row[key] / rows[0][key] for key in ("seconds", "instructions")}
    columns = [
        Column("model", lambda row: row["case"]),
        Column("trace and compile s", lambda row: f"{row['seconds']:.1f}"),
        ratio("time ratio", "seconds_ratio"),
        Column("instructions", lambda row: str(row["instructions"])),
        ratio("instructions ratio", "instructions_ratio"),
    ]
    title = f"{config.model.path}, {config.model.trainable}, {config.train.batch_size} rows of {config.data.length}"
    publish("compile", title, rows, columns, out, config=to_dict(config))
    return rows


def instructions(step: CompiledStep) -> int:
    """Of the program that XLA made: what it takes to compile, however fast the machine is."""
    text = step.compiled.as_text()
    assert text is not None
    return sum(" = " in line for line in text.splitlines())
