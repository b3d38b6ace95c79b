"""The tiny pretrained checkpoints that ship with the package, one folder each, in Hugging Face layout."""

from __future__ import annotations

import difflib
from pathlib import Path

from jaxguard.errors import UserError

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The shipped checkpoints."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))


def resolve(path: str) -> Path:
    """The folder of a shipped checkpoint's name, or `path` itself where it is a folder with a config.json.

    Raises:
        UserError: neither exists.
    """
    for folder in (FOLDER / path, Path(path)):
        if (folder / "config.json").is_file():
            return folder
    close = difflib.get_close_matches(path, names(), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"shipped: {', '.join(names()) or 'none'}"
    raise UserError(f"model.path {path!r} holds no config.json; give a Hugging Face checkpoint folder ({hint})")
