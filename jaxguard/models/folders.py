"""Checkpoint names to folders.

`jaxguard/zoo` holds the tiny pretrained checkpoints that ship with the package, and descriptions of published
checkpoints (config.json alone) for uses that need shapes but no weights.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from jaxguard.errors import UserError

ZOO = Path(__file__).parent.parent / "zoo"
PUBLISHED = ZOO / "published"


def names() -> list[str]:
    """Return the names of the shipped checkpoints."""
    return sorted(path.parent.name for path in ZOO.glob("*/config.json"))


def resolve(path: str) -> Path:
    """Return the folder of a shipped checkpoint, or `path` itself if it is a folder with a config.json.

    Raises:
        UserError: neither exists.
    """
    for folder in (ZOO / path, Path(path)):
        if (folder / "config.json").is_file():
            return folder
    close = difflib.get_close_matches(path, names(), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"shipped: {', '.join(names()) or 'none'}"
    if (PUBLISHED / Path(path).name / "config.json").is_file():
        hint = f"hf download {path} --local-dir {path}"
    raise UserError(f"model.path {path!r} holds no config.json; give a Hugging Face checkpoint folder ({hint})")


def describe(path: str) -> Path:
    """Return `resolve(path)` or, for a published checkpoint ("ORGANISATION/NAME") without local files, its description.

    Raises:
        UserError: neither exists.
    """
    published = PUBLISHED / Path(path).name
    here = (Path(path) / "config.json").is_file()
    return published if not here and (published / "config.json").is_file() else resolve(path)
