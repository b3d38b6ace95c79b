"""Experiments: from a configuration file or a run folder to a validated configuration."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
import runpy
import traceback
from pathlib import Path
from typing import Any, TypeVar

from jaxguard.attacks.registry import build_attack
from jaxguard.config import Config, ModelConfig, ViewConfig, from_dict, keys, suggestion, to_dict
from jaxguard.data import views
from jaxguard.data.dialogue import patch_of_token, tokens_per_image
from jaxguard.errors import UserError
from jaxguard.grid import Cell, Cost, Grid
from jaxguard.models import zoo

T = TypeVar("T")


def load(path: Path) -> Config:
    """The configuration of an experiment.

    Args:
        path: a Python file that defines ``config``, a run folder, or a run folder's config.json. A run folder that
            was moved is found where it lies now.

    Raises:
        UserError: there is no such file, or it holds no valid configuration.
    """
    if path.is_dir():
        return _load_run(path)
    if not path.is_file():
        close = difflib.get_close_matches(path.name, [file.name for file in path.parent.glob("*.py")], n=1)
        hint = f"; did you mean {path.parent / close[0]}?" if close else ""
        raise UserError(f"{path} does not exist; give a configuration file or a run folder{hint}")
    if path.name == "config.json":
        return _load_run(path.parent)
    if path.suffix != ".py":
        raise UserError(f"{path} is neither a Python file nor a run folder")
    return _load_python(path)


def load_model(path: Path) -> Config:
    """As `load`, but `path` may also be a checkpoint: a shipped one's name, or a folder in Hugging Face layout.

    The configuration of a bare checkpoint is the default one; no run lies where it points.
    """
    if path.is_file() or (path.is_dir() and not _is_checkpoint(path)):
        return load(path)
    return Config(out=zoo.resolve(str(path)), model=ModelConfig(path=str(path)))


def validate(config: Config) -> None:
    """Check what no section can tell alone. Reads files, touches no device.

    Raises:
        UserError: the first value that cannot work.
    """
    if config.attack.name != "none":
        build_attack(config.attack)
        _validate_target(config)
    weights = {name: getattr(config.objective, name) for name in ("alpha", "cross", "entropy")}
    if config.attack.trainer == "attacker" and any(weights.values()):
        name = next(name for name, value in weights.items() if value)
        raise UserError(
            f"objective.{name} is {weights[name]}: attack.trainer attacker minimises its own losses alone; set it to 0"
        )
    if config.attack.trainer == "attacker" and config.data.bucket:
        raise UserError(f"data.bucket is {config.data.bucket}: attack.trainer attacker takes rows of one length; use 0")
    if config.objective.cross_warmup > config.train.steps:
        raise UserError(
            f"objective.cross_warmup ({config.objective.cross_warmup}) exceeds train.steps ({config.train.steps}): "
            "lambda would never reach its value"
        )
    _validate_batch(config)
    _validate_image(config)


def check_writable(folder: Path) -> None:
    """Check before the work that its result can be written.

    Raises:
        UserError: `folder` neither exists nor can be made, or cannot be written into.
    """
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise UserError(f"cannot write into {folder}: {nearest} is a file; choose another folder")
    if not os.access(nearest, os.W_OK):
        raise UserError(f"cannot write into {folder}: {nearest} is not writable; choose another folder")


def load_grid(path: Path, scale: str) -> Grid | Cost:
    """What one scale of a Python file's `grids = {"tiny": Grid(...), ...}` names, every configuration validated.

    Raises:
        UserError: there is no such file, it defines no such grid, or a cell cannot work.
    """
    if not path.is_file() or path.suffix != ".py":
        raise UserError(f"{path} is not a Python file; give one that defines `grids`, as configs/tables/*.py do")
    grids = _defined(path, "grids", dict)
    if not isinstance(grid := grids.get(scale), Grid | Cost):
        raise UserError(f"{path} has no grid of scale {scale!r}; choose among {', '.join(map(str, grids)) or 'none'}")
    runs = grid.steps if isinstance(grid, Cost) else {str(cell): _startable(cell) for cell in grid.cells}
    for name, config in runs.items():
        try:
            validate(config)
        except UserError as error:
            raise UserError(f"{path}: {name}: {error}") from error
    return grid


def _startable(cell: Cell) -> Config:
    """A cell's configuration; where its weights are still to be trained, upon those that they are trained from."""
    return cell.config if cell.start is None else dataclasses.replace(cell.config, model=cell.start.model)


def _load_python(path: Path) -> Config:
    return _checked(to_dict(_defined(path, "config", Config)), path)


def _defined(path: Path, name: str, kind: type[T]) -> T:
    """What a Python file calls `name`, of the given type."""
    try:
        names = runpy.run_path(str(path))
    except SyntaxError as error:
        raise UserError(f"{error.filename or path}:{error.lineno}: {error.msg}") from error
    except Exception as error:  # whatever the user's code raises is a mistake in that file
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        raise UserError(f"{':'.join(map(str, (path, *lines[-1:])))}: {_describe(error)}") from error
    value = names.get(name)
    if not isinstance(value, kind):
        found = f"it defines no `{name}`" if value is None else f"its `{name}` is of type {type(value).__name__}"
        raise UserError(f"{path}: {found}; it must hold `{name} = {kind.__name__}(...)`")
    return value


def _load_run(folder: Path) -> Config:
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no config.json: it is not a run folder")
    config, here = _checked(_read_object(path), path), folder.resolve()
    return config if config.run_dir.resolve() == here else dataclasses.replace(config, out=here.parent, name=here.name)


def _checked(values: Any, path: Path) -> Config:
    """Values from `path` with their types checked, which a dataclass alone does not do."""
    try:
        return from_dict(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _describe(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    unexpected = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    return f"{type(error).__name__}: {error}{suggestion(unexpected[1], keys()) if unexpected else ''}"


def _validate_batch(config: Config) -> None:
    size, parts = config.train.batch_size, config.train.accumulate
    if size % parts:
        raise UserError(f"train.batch_size is {size}: must be a multiple of train.accumulate ({parts})")
    if parts > 1 and config.attack.trainer == "attacker":
        raise UserError(f"train.accumulate is {parts}: attack.trainer attacker takes a batch as a whole; set it to 1")
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
    """The target must fit into what is learnt of an answer and into what is decoded of one.

    It is counted by tokenizer.json alone, which loads without transformers; a checkpoint with an older tokenizer is
    left to the encoder, which names the first row that does not fit.
    """
    path = zoo.describe(config.model.path) / "tokenizer.json"
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
    """The checkpoint's image must be cut into the view's patches and fit into a row."""
    path = zoo.describe(config.model.path) / "config.json"
    values = _read_object(path)
    tokens, vision = tokens_per_image(values), values.get("vision_config")
    image_size = vision.get("image_size") if isinstance(vision, dict) else None
    if tokens is None or not isinstance(image_size, int):
        return  # Hugging Face's defaults, or a fault that loading the model names
    if config.data.length <= tokens:
        raise UserError(
            f"data.length is {config.data.length}: must exceed the {tokens} tokens of an image of {path.parent}"
        )
    if config.objective.views == 2 or config.train.probe or config.view != ViewConfig():
        views.check(config.view, image_size, patch_of_token(values))


def _is_checkpoint(folder: Path) -> bool:
    path = folder / "config.json"
    return path.is_file() and "model_type" in _read_object(path)


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds a {type(values).__name__}, not an object")
    return values
