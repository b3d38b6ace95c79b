"""Registry of model families: `model_type` of config.json -> package. A family's package has two modules:

- `processor.py` defines `read(config, preprocessor)`, which returns a `models.processor.Processor`; it imports no JAX;
- `weights.py` defines `FAMILY`, a `models.family.Family`.

Both are imported on first use, so that the data side imports processors only.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jaxguard.errors import UserError
from jaxguard.models.checkpoint_files import read_config, read_preprocessor
from jaxguard.models.processor import Processor

if TYPE_CHECKING:
    from jaxguard.models.family import Family

PACKAGES = {
    "llava": "jaxguard.models.families.llava",
    "blip-2": "jaxguard.models.families.blip2",
    "idefics": "jaxguard.models.families.idefics",
}


def register(model_type: str, package: str) -> None:
    """Register a family, or replace a registered one.

    Args:
        model_type: as config.json spells it.
        package: dotted name of an importable package that holds `processor` and `weights`.
    """
    PACKAGES[model_type] = package


def open_processor(folder: Path) -> Processor:
    """Open the processor of a checkpoint folder, or of a description (config.json alone).

    Raises:
        UserError: unreadable files, an unknown `model_type`, or something unsupported.
    """
    config, preprocessor = read_config(folder), read_preprocessor(folder)
    read = _module(config, folder, "processor").read
    try:
        processor = read(config, preprocessor)
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{folder / 'config.json'}: {error}") from error
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    token, rows = config.get("image_token_index", 0), processor.vocabulary
    if rows is not None and token >= rows:
        raise UserError(
            f"{folder / 'config.json'}: image_token_index {token} has no row in the embedding table of {rows}; correct "
            "it, or resize the model's embeddings"
        )
    return processor


def open_family(config: dict[str, Any], folder: Path) -> Family:
    """Open the family of a checkpoint.

    Args:
        config: content of its config.json.
        folder: the checkpoint folder, for error messages.

    Raises:
        UserError: the `model_type` is unknown.
    """
    return _module(config, folder, "weights").FAMILY


def _module(config: dict[str, Any], folder: Path, name: str) -> ModuleType:
    kind = config.get("model_type")
    if kind not in PACKAGES:
        known = ", ".join(PACKAGES)
        raise UserError(f"{folder / 'config.json'}: model_type {kind!r} is not supported; use {known}")
    return import_module(f"{PACKAGES[kind]}.{name}")
