"""Loading of configurations from Python files and run folders."""

from __future__ import annotations

import dataclasses
import difflib
import re
import runpy
import traceback
from pathlib import Path
from typing import Any, TypeVar

from jaxguard.config.run import Config
from jaxguard.config.values import from_dict, keys, suggestion, to_dict
from jaxguard.errors import UserError
from jaxguard.files import read_object

T = TypeVar("T")


def load(path: Path) -> Config:
    """Load the configuration of an experiment.

    Args:
        path: Python file that defines `config`, run folder, or config.json of a run folder. For a moved run folder,
            `out` and `name` are updated.

    Raises:
        UserError: The file does not exist, or has no valid configuration.
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


def _load_python(path: Path) -> Config:
    return _checked(to_dict(defined(path, "config", Config)), path)


def defined(path: Path, name: str, kind: type[T]) -> T:
    """Run a Python file and return its variable `name`, which must have the given type."""
    try:
        names = runpy.run_path(str(path))
    except SyntaxError as error:
        raise UserError(f"{error.filename or path}:{error.lineno}: {error.msg}") from error
    except Exception as error:  # any exception of the user's code is an error in that file
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
    config, here = _checked(read_object(path), path), folder.resolve()
    return config if config.run_dir.resolve() == here else dataclasses.replace(config, out=here.parent, name=here.name)


def _checked(values: Any, path: Path) -> Config:
    """Build a configuration from the values of `path`, checking their types, as dataclasses do not."""
    try:
        return from_dict(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _describe(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    unexpected = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    return f"{type(error).__name__}: {error}{suggestion(unexpected[1], keys()) if unexpected else ''}"
