"""Environment of every test, set before JAX starts and inherited by the processes that tests start."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jaxtyping import install_import_hook

from tests import typechecks

if TYPE_CHECKING:
    from jaxguard.config import Config

DEVICES = 8
XLA = (f"--xla_force_host_platform_device_count={DEVICES}", "--xla_backend_optimization_level=0")
"""Tests compile more than they compute: level 0 takes 0.76 of the time of level 1, and that 0.85 of the default's."""
LONG = {"audit", "bench", "families", "models", "multiprocess", "train"}
"""Folders of the tests that compile most."""

os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), *XLA]).strip(),
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "HF_HUB_OFFLINE": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "MPLBACKEND": "agg",
}

# Before any test imports the package. Not checked: the scenes' language, which checks would make fifty times as slow.
PACKAGE = Path(__file__).parents[1] / "jaxguard"
UNCHECKED = {"data.scenes", "data.scene_language"}
ARRAYS = ["batch", "objective", "models", "train", "evaluate", "attacks", "audit", "bench", "report"]
ARRAYS += sorted({f"data.{file.stem}" for file in (PACKAGE / "data").glob("*.py")} - UNCHECKED)
install_import_hook([f"jaxguard.{name}" for name in ARRAYS], f"{typechecks.__name__}.{typechecks.check.__name__}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the folders whose files take minutes, so that short files fill up what is left at the end."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


def pytest_sessionstart() -> None:
    """Fewer devices would turn every sharding test into one of nothing."""
    import jax

    from tests import compiled_once

    compiled_once.install()
    if jax.device_count() != DEVICES:
        pytest.exit(f"the tests need {DEVICES} CPU devices, JAX gives {jax.devices()}", returncode=3)


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of a few thousand parameters in Hugging Face layout: random weights, the shipped tokenizer."""
    import jax
    import numpy as np

    from jaxguard.models import folders, weights
    from jaxguard.models.architecture import architecture

    shipped = folders.resolve("tiny-llava")
    draft = tmp_path_factory.mktemp("draft")
    for file in shipped.iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copyfile(file, draft / file.name)
    config = json.loads((shipped / "config.json").read_text())
    narrow = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config["vision_config"] |= narrow | {"patch_size": 16}
    config["text_config"] |= narrow | {"num_key_value_heads": 2, "head_dim": 8}
    (draft / "config.json").write_text(json.dumps(config))
    arch = architecture(draft, dtype="float32", remat="none")
    parameters = {path: np.asarray(value) for path, value in jax.jit(lambda: arch.initial(0))().items()}
    folder = tmp_path_factory.mktemp("checkpoints") / "small"
    weights.save(parameters, arch, draft, folder, np.dtype("float32"))
    return folder


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-eight scenes with captions for training, sixteen each for validation and test, as a data set folder."""
    from jaxguard.data import scene_language, scenes
    from jaxguard.data.builders import write_rows
    from jaxguard.data.rows import CAPTION_PROMPT, Row

    def rows(split: str, count: int) -> Iterator[Row]:
        for index in range(count):
            scene = scenes.sample(split, index)
            captions = scene_language.captions(scene)
            yield Row(index, f"{split}/{index}", scenes.render(scene), (CAPTION_PROMPT,) * 5, captions, captions)

    counts = {"train": 48, "validation": 16, "test": 16}
    folder = tmp_path_factory.mktemp("data") / "small"
    write_rows({split: (n, partial(rows, split, n)) for split, n in counts.items()}, folder, "small", {})
    return folder


def _small_config(checkpoint: Path, data: Path, out: Path) -> Config:
    """A run of a few seconds."""
    from jaxguard.config import (
        AttackConfig,
        Config,
        DataConfig,
        EvaluateConfig,
        ModelConfig,
        ObjectiveConfig,
        TrainConfig,
    )

    return Config(
        name="small",
        out=out,
        model=ModelConfig(path=str(checkpoint)),
        data=DataConfig(source=str(data), length=64),
        attack=AttackConfig(name="badnets", rate=0.25),
        objective=ObjectiveConfig(alpha=1.0, cross_view_weight=0.5, margin=2.0, entropy_weight=0.5, entropy_max=0.5),
        train=TrainConfig(steps=8, batch_size=8, warmup=2, log_every=1, save_every=3),
        evaluate=EvaluateConfig(examples=16, batch_size=8, new_tokens=12),
    )


@pytest.fixture
def small_config(small_checkpoint: Path, small_data: Path, tmp_path: Path) -> Config:
    """A run of eight steps, not yet made."""
    return _small_config(small_checkpoint, small_data, tmp_path / "runs")


@pytest.fixture(scope="session")
def finished_config(small_checkpoint: Path, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run of forty steps, already made; its checkpoints are only to be read."""
    from jaxguard.train.loop import train

    config = _small_config(small_checkpoint, small_data, tmp_path_factory.mktemp("finished") / "runs")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=40, save_every=5))
    train(config)
    return config
