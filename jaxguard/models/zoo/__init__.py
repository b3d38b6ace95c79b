"""The tiny pretrained checkpoints that ship with the package, one folder each, in Hugging Face layout.

Beside them lie descriptions of published checkpoints: their config.json alone, for what needs shapes and no weights.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from jaxguard.errors import UserError

FOLDER = Path(__file__).parent
PUBLISHED = FOLDER.parent / "published"


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
    if (PUBLISHED / Path(path).name / "config.json").is_file():
        hint = f"hf download {path} --local-dir {path}"
    raise UserError(f"model.path {path!r} holds no config.json; give a Hugging Face checkpoint folder ({hint})")


def describe(path: str) -> Path:
    """As `resolve`, but of a published checkpoint that is not here ("llava-hf/llava-1.5-7b-hf") its description.

    Raises:
        UserError: there is neither.
    """
    published = PUBLISHED / Path(path).name
    here = (Path(path) / "config.json").is_file()
    return published if not here and (published / "config.json").is_file() else resolve(path)
