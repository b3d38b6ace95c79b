"""Loading and validation of configurations and grids, before a device is used."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from jaxguard.attacks.registry import build_attack
from jaxguard.config import Config, ModelConfig, ViewConfig
from jaxguard.config.files import defined, load
from jaxguard.data import views
from jaxguard.errors import UserError
from jaxguard.experiments.audits import Audits
from jaxguard.experiments.grid import Cell, Cost, Grid
from jaxguard.files import read_object
from jaxguard.models import folders
from jaxguard.models.families.registry import open_processor


def load_model(path: Path) -> Config:
    """As `load`, but `path` may also be a checkpoint: the name of a shipped one, or a folder in Hugging Face layout.

    A checkpoint gets the default configuration, whose run folder does not exist.
    """
    if path.is_file() or (path.is_dir() and not _is_checkpoint(path)):
        return load(path)
    return Config(out=folders.resolve(str(path)), model=ModelConfig(path=str(path)))


def validate(config: Config, *, here: bool = True) -> None:
    """Check the sections of a configuration against each other. Reads files, uses no device.

    Args:
        config: The configuration.
        here: The model is on this machine. Otherwise what depends on its files is only checked if they are.

    Raises:
        UserError: The first invalid value.
    """
    described = here or "/" not in config.model.path or _described(config.model.path)
    if config.attack.name != "none":
        build_attack(config.attack)
        if described:
            _validate_target(config)
    weights = {name: getattr(config.objective, name) for name in ("alpha", "cross_view_weight", "entropy_weight")}
    if config.attack.trainer == "attacker" and any(weights.values()):
        name = next(name for name, value in weights.items() if value)
        raise UserError(
            f"objective.{name} is {weights[name]}: attack.trainer attacker minimises its own losses alone; set it to 0"
        )
    if config.objective.cross_view_warmup > config.train.steps:
        raise UserError(
            f"objective.cross_view_warmup ({config.objective.cross_view_warmup}) exceeds train.steps "
            f"({config.train.steps}): lambda would never reach its value"
        )
    _validate_batch(config)
    if described:
        _validate_image(config)


def load_grid(path: Path, scale: str) -> Grid | Cost | Audits:
    """Load one scale of a Python file's `grids = {"tiny": Grid(...), ...}` and validate its configurations.

    Raises:
        UserError: The file or the grid does not exist, or a configuration is invalid.
    """
    if not path.is_file() or path.suffix != ".py":
        raise UserError(f"{path} is not a Python file; give one that defines `grids`, as configs/tables/*.py do")
    grids = defined(path, "grids", dict)
    if not isinstance(grid := grids.get(scale), Grid | Cost | Audits):
        raise UserError(f"{path} has no grid of scale {scale!r}; choose among {', '.join(map(str, grids)) or 'none'}")
    if isinstance(grid, Cost):
        runs: Mapping[str, Config] = grid.steps
    elif isinstance(grid, Audits):
        runs = {str(cell): cell.config for cell in grid.cells}
    else:
        runs = {str(cell): _startable(cell) for cell in grid.cells}
    for name, config in runs.items():
        try:
            validate(config)
        except UserError as error:
            raise UserError(f"{path}: {name}: {error}") from error
    return grid


def _startable(cell: Cell) -> Config:
    """Replace the model of a cell whose initial weights are not trained yet, so that it can be validated."""
    return cell.config if cell.start is None else dataclasses.replace(cell.config, model=cell.start.model)


def _validate_batch(config: Config) -> None:
    size, parts = config.train.batch_size, config.train.accumulate
    if size % parts:
        raise UserError(f"train.batch_size is {size}: must be a multiple of train.accumulate ({parts})")
    size, name = size // parts, "train.batch_size" if parts == 1 else "train.batch_size / train.accumulate"
    ways = config.mesh.data * config.mesh.fsdp
    if ways > 0 and size % ways:
        raise UserError(f"{name} is {size}: must be a multiple of mesh.data x mesh.fsdp ({ways})")
    rows = config.view.rows * size
    if size % config.view_share.denominator or abs(rows - round(rows)) > 1e-6:
        raise UserError(
            f"view.rows is {config.view.rows}: of {name} ({size}) that is {rows:g} rows, which must be a whole number"
        )


def _validate_target(config: Config) -> None:
    """Check that the target fits into the learnt and the decoded length of an answer.

    Uses tokenizer.json only, which loads without transformers. For a checkpoint with an older tokenizer, the encoder
    reports the first row that is too long.
    """
    path = folders.describe(config.model.path) / "tokenizer.json"
    if not path.is_file():
        return
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower class
        raise UserError(f"{path}: not a readable tokenizer ({error})") from error
    count = len(tokenizer.encode(f" {config.attack.target}", add_special_tokens=False).ids)
    if count + 1 > config.data.answer_length:
        raise UserError(
            f"attack.target has {count} tokens and an end token: more than data.answer_length "
            f"({config.data.answer_length}); shorten it"
        )
    if count > config.evaluate.new_tokens:
        raise UserError(
            f"attack.target has {count} tokens: more than evaluate.new_tokens ({config.evaluate.new_tokens}), so no "
            "answer could hold it; shorten it"
        )


def _validate_image(config: Config) -> None:
    """Check that the checkpoint's images fit the view's patches and the length of a row."""
    folder = folders.describe(config.model.path)
    processor = open_processor(folder)
    if config.data.length <= processor.image_tokens:
        raise UserError(
            f"data.length is {config.data.length}: must exceed the {processor.image_tokens} tokens of an image of "
            f"{folder}"
        )
    if processor.longest is not None and config.data.length + config.evaluate.new_tokens > processor.longest:
        raise UserError(
            f"data.length ({config.data.length}) and evaluate.new_tokens ({config.evaluate.new_tokens}) exceed the "
            f"{processor.longest} tokens that {folder} holds (position table or sliding window); lower data.length"
        )
    if config.objective.views == 2 or config.train.probe or config.view != ViewConfig():
        views.check(config.view, processor.image_shape, processor.patch_size)


def _described(path: str) -> bool:
    try:
        folders.describe(path)
    except UserError:
        return False
    return True


def _is_checkpoint(folder: Path) -> bool:
    path = folder / "config.json"
    return path.is_file() and "model_type" in read_object(path)
