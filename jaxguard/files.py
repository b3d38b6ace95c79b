"""JSON objects read from files; files written atomically."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from jaxguard.errors import UserError


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: it is not one.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not an object")
    return content


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: to a temporary name, then rename."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def check_writable(folder: Path) -> None:
    """Check before a long computation that its result can be written.

    Raises:
        UserError: `folder` cannot be created, or is not writable.
    """
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise UserError(f"cannot write into {folder}: {nearest} is a file; choose another folder")
    if not os.access(nearest, os.W_OK):
        raise UserError(f"cannot write into {folder}: {nearest} is not writable; choose another folder")
