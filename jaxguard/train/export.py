"""A trained run back into a Hugging Face checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxguard.config import Config
from jaxguard.errors import UserError
from jaxguard.models import weights
from jaxguard.models.families import Parameters
from jaxguard.train.checkpoint import FOLDER, Checkpoints
from jaxguard.train.setup import Model, load_model, prepare


def run_parameters(config: Config, model: Model) -> Parameters:
    """The run's newest trained parameters together with the frozen ones.

    Raises:
        UserError: the run is not trained.
    """
    if not (config.run_dir / FOLDER).is_dir():
        raise UserError(f"{config.run_dir} holds no checkpoints; run `jaxguard train` first")
    setup, _ = prepare(config, model)
    with Checkpoints(config.run_dir) as checkpoints:
        state, _ = checkpoints.restore(setup.abstract)
    return {**setup.frozen, **state.parameters}


def export(config: Config, out: Path, dtype: str) -> None:
    """Write a run as a checkpoint folder that `transformers` loads: its weights, its base model's other files.

    Args:
        config: a trained run.
        out: must not exist, or be empty.
        dtype: "float32", "float16" or "bfloat16".

    Raises:
        UserError: the run is not trained, or `out` is taken.
    """
    model = load_model(config)
    parameters = {path: np.asarray(value) for path, value in run_parameters(config, model).items()}
    weights.save(parameters, model.architecture, model.folder, out, np.dtype(dtype))
