"""Checkpoint names to folders.

`jaxguard/zoo` holds the tiny pretrained checkpoints that ship with the package, and descriptions of published
checkpoints (config.json alone) for uses that need shapes but no weights.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from jaxguard.errors import UserError
from jaxguard.files import read_object

ZOO = Path(__file__).parent.parent / "zoo"
PUBLISHED = ZOO / "published"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""Files of a LoRA adapter."""
TOKENS = ("added_tokens", "model")
"""Parts of tokenizer.json that say which texts are which tokens."""


def names() -> list[str]:
    """Return the names of the shipped checkpoints."""
    return sorted(path.parent.name for path in ZOO.glob("*/config.json"))


def resolve(path: str) -> Path:
    """Return the folder of a shipped checkpoint, or `path` itself if it is a folder with a config.json.

    The folder of a LoRA adapter stands for its base, whose name is resolved in the same way and never downloaded.

    Raises:
        UserError: neither exists, or the base of an adapter does not.
    """
    if (folder := adapter(path)) is not None:
        return _base(folder)
    for folder in (ZOO / path, Path(path)):
        if (folder / "config.json").is_file():
            return folder
    close = difflib.get_close_matches(path, names(), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"shipped: {', '.join(names()) or 'none'}"
    if (PUBLISHED / Path(path).name / "config.json").is_file():
        hint = f"hf download {path} --local-dir {path}"
    raise UserError(f"model.path {path!r} holds no config.json; give a Hugging Face checkpoint folder ({hint})")


def adapter(path: str) -> Path | None:
    """Return the folder of a LoRA adapter in the layout of `peft`, or None if `path` is none.

    Raises:
        UserError: it lacks its weights, or holds those of a whole model too.
    """
    folder = Path(path)
    if (ZOO / path / "config.json").is_file() or not (folder / ADAPTER_CONFIG).is_file():
        return None
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise UserError(f"{folder} is a LoRA adapter without {ADAPTER_WEIGHTS} (pickled weights are never opened)")
    if any(folder.glob("model*.safetensors*")):
        raise UserError(f"{folder} holds both a LoRA adapter and a whole model; keep one of them")
    return folder


def _base(folder: Path) -> Path:
    """Return the folder of an adapter's base.

    Raises:
        UserError: it is not on this machine, is an adapter itself, or has another tokenizer than the adapter's folder.
    """
    named = read_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(named, str) or adapter(named) is not None:
        raise UserError(
            f"{folder / ADAPTER_CONFIG}: base_model_name_or_path {named!r} is no checkpoint; merge it first"
        )
    try:
        base = resolve(named)
    except UserError as error:
        raise UserError(f"{folder / ADAPTER_CONFIG}: the base of this adapter is missing: {error}") from error
    tokenizers = [read_object(path) for place in (folder, base) if (path := place / "tokenizer.json").is_file()]
    if len(tokenizers) == 2 and any(tokenizers[0].get(part) != tokenizers[1].get(part) for part in TOKENS):
        raise UserError(f"{folder}: its tokenizer.json differs from that of its base {base}; merge the adapter first")
    return base


def describe(path: str) -> Path:
    """Return `resolve(path)` or, for a published checkpoint ("ORGANISATION/NAME") without local files, its description.

    Raises:
        UserError: neither exists.
    """
    published = PUBLISHED / Path(path).name
    here = (Path(path) / "config.json").is_file()
    return published if not here and (published / "config.json").is_file() else resolve(path)
