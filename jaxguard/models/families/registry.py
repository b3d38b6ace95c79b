"""Which package a checkpoint's `model_type` stands for. A family is a package with two modules that are read here:

- `processor.py`: `read(config, preprocessor)`, a `models.processor.Processor`; it imports no JAX;
- `weights.py`: `FAMILY`, a `models.family.Family`.

They are imported when they are asked for, so that the data side loads processors alone.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jaxguard.errors import UserError
from jaxguard.files import read_object
from jaxguard.models.processor import Processor

if TYPE_CHECKING:
    from jaxguard.models.family import Family

PACKAGES = {
    "llava": "jaxguard.models.families.llava",
    "blip-2": "jaxguard.models.families.blip2",
    "idefics": "jaxguard.models.families.idefics",
}


def register(model_type: str, package: str) -> None:
    """Make a family known, or replace a known one.

    Args:
        model_type: as config.json spells it.
        package: dotted name of an importable package that holds `processor` and `weights`.
    """
    PACKAGES[model_type] = package


def open_processor(folder: Path) -> Processor:
    """The processor of a checkpoint folder, or of a description that holds config.json alone.

    Raises:
        UserError: unreadable files, an unknown `model_type`, or something that is not supported.
    """
    config, path = read_object(folder / "config.json"), folder / "preprocessor_config.json"
    read = _module(config, folder, "processor").read
    try:
        return read(config, read_object(path) if path.is_file() else {})
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / 'config.json'}: {error}") from error
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error


def open_family(config: dict[str, Any], folder: Path) -> Family:
    """The family of a checkpoint.

    Args:
        config: its config.json.
        folder: where that lies, for errors.

    Raises:
        UserError: the `model_type` is not known.
    """
    return _module(config, folder, "weights").FAMILY


def _module(config: dict[str, Any], folder: Path, name: str) -> ModuleType:
    kind = config.get("model_type")
    if kind not in PACKAGES:
        known = ", ".join(PACKAGES)
        raise UserError(f"{folder / 'config.json'}: model_type {kind!r} is not supported; use {known}")
    return import_module(f"{PACKAGES[kind]}.{name}")
