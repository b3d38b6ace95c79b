"""A trained run back into a Hugging Face checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxguard.config import Checkpoint, Config
from jaxguard.data.encode import Encoder
from jaxguard.errors import UserError
from jaxguard.models import folders, weights
from jaxguard.models.architecture import Parameters
from jaxguard.models.checkpoint_files import read_generation
from jaxguard.models.lora import merged
from jaxguard.train.card import card_files
from jaxguard.train.checkpoint import FOLDER, Checkpoints
from jaxguard.train.setup import Model, load_model
from jaxguard.train.state import partition


def checkpoint_step(run: Path, which: Checkpoint) -> int:
    """Step of a run's newest checkpoint, or of that of the lowest validation loss.

    Raises:
        UserError: the run is not trained.
    """
    if not (run / FOLDER).is_dir():
        raise UserError(f"{run} holds no checkpoints; run `jaxguard train` first")
    with Checkpoints(run) as checkpoints:
        return checkpoints.evaluable(which)


def run_parameters(run: Path, which: Checkpoint | int, model: Model, trainable: str) -> Parameters:
    """A run's trained parameters and the frozen ones.

    Args:
        run: the run folder.
        which: the newest checkpoint, that of the lowest validation loss, or that of a step.
        model: the weights that the run started from.
        trainable: which of them it trained (`model.trainable`).

    Raises:
        UserError: the run is not trained.
    """
    step = which if isinstance(which, int) else checkpoint_step(run, which)
    started, frozen = partition(model.parameters, trainable, model.architecture.family)
    abstract = {
        path: jax.ShapeDtypeStruct(value.shape, jnp.float32, sharding=model.shardings[path])
        for path, value in started.items()
    }
    with Checkpoints(run) as checkpoints:
        return {**frozen, **checkpoints.parameters(abstract, step)}


def export(config: Config, out: Path, dtype: str, *, adapter: bool = False) -> None:
    """Write a run as a checkpoint folder that `transformers` loads and `hf upload` takes as it is.

    It holds the weights, the base's tokenizer and processor, a generation_config.json with the tokens that end an
    answer, a model card, and the run's configuration, manifest and scores. Adapters are merged into the weights; or,
    alone, they are written as a folder that `peft` loads.

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
    if adapter and folders.adapter(config.model.path) is not None:
        raise UserError(
            f"the run starts from an adapter ({config.model.path}), so its own adapts no checkpoint; leave "
            "--adapter out"
        )
    model = load_model(config.model, config.mesh, config.seed)
    found = run_parameters(config.run_dir, config.evaluate.checkpoint, model, config.model.trainable)
    parameters = {path: np.asarray(value) for path, value in found.items()}
    if adapter:
        files = card_files(config, dtype, "adapters")
        weights.save_adapter(parameters, model.architecture, config.model.path, out, np.dtype(dtype), files)
    else:
        if model.architecture.lora is not None:
            parameters = merged(parameters, model.architecture.lora)
        files = card_files(config, dtype, "weights") | {"generation_config.json": _generation(model.folder)}
        weights.save(parameters, model.architecture, model.folder, out, np.dtype(dtype), files)


def _generation(folder: Path) -> str:
    """Return generation_config.json of an export: the base's, with all tokens that end an answer."""
    encoder = Encoder.from_checkpoint(folder)
    special = {"bos_token_id": encoder.bos_id, "pad_token_id": encoder.pad_id}
    named = {name: value for name, value in special.items() if value is not None}
    return json.dumps(named | read_generation(folder) | {"eos_token_id": list(encoder.stop_ids)}, indent=2) + "\n"
