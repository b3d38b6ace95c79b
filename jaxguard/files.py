"""Atomic writing of files."""

from __future__ import annotations

import os
from pathlib import Path

from jaxguard.errors import UserError


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
