"""A trained run back into a Hugging Face checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxguard.config import Config
from jaxguard.errors import UserError
from jaxguard.models import weights
from jaxguard.models.architecture import Parameters
from jaxguard.models.lora import merged
from jaxguard.train.checkpoint import FOLDER, Checkpoints
from jaxguard.train.setup import Model, load_model, prepare


def run_parameters(config: Config, model: Model) -> Parameters:
    """The run's trained parameters, of the checkpoint that `evaluate.checkpoint` names, and the frozen ones.

    Raises:
        UserError: the run is not trained.
    """
    if not (config.run_dir / FOLDER).is_dir():
        raise UserError(f"{config.run_dir} holds no checkpoints; run `jaxguard train` first")
    setup, _ = prepare(config, model)
    with Checkpoints(config.run_dir) as checkpoints:
        trained = checkpoints.parameters(setup.abstract.parameters, config.evaluate.checkpoint)
    return {**setup.frozen, **trained}


def export(config: Config, out: Path, dtype: str, *, adapter: bool = False) -> None:
    """Write a run as a checkpoint folder that `transformers` loads: its weights, its base model's other files.

    Adapters are merged into the weights; or, alone, they are written as a folder that `peft` loads.

    Args:
        config: a trained run.
        out: must not exist, or be empty.
        dtype: "float32", "float16" or "bfloat16".
        adapter: write the adapters alone.

    Raises:
        UserError: the run is not trained, or has no adapters to write alone, or `out` is taken.
    """
    if adapter and config.model.trainable != "lora":
        raise UserError(f"the run trains {config.model.trainable!r}: there is no adapter to write; leave --adapter out")
    model = load_model(config)
    parameters = {path: np.asarray(value) for path, value in run_parameters(config, model).items()}
    if adapter:
        weights.save_adapter(parameters, model.architecture, config.model.path, out, np.dtype(dtype))
    else:
        if model.architecture.lora is not None:
            parameters = merged(parameters, model.architecture.lora)
        weights.save(parameters, model.architecture, model.folder, out, np.dtype(dtype))
