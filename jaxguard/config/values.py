"""Configurations as JSON values: reading, writing, and the names of options."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jaxguard.config.checks import require
from jaxguard.config.migrations import migrate, renamed
from jaxguard.config.run import Config
from jaxguard.errors import UserError


def keys(kind: type = Config, prefix: str = "") -> list[str]:
    """List the dotted names of all options: "name", "seed", ..., "train.steps", ..."""
    found: list[str] = []
    for name, hint in get_type_hints(kind).items():
        found += keys(hint, f"{prefix}{name}.") if _is_section(hint) else [prefix + name]
    return found


def suggestion(name: str, known: Iterable[str]) -> str:
    """Make the end of an error message about an unknown name: the closest known name, if one is close.

    The last part of a dotted name also matches: "steps" suggests "train.steps".
    """

    def closeness(choice: str) -> float:
        pairs = ((name, choice), (name.rpartition(".")[2].lstrip("-"), choice.rpartition(".")[2].lstrip("-")))
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    if (today := renamed(name)) is not None:
        return f"; it is now called {today}"
    best = max(known, key=closeness, default="")
    return f"; did you mean {best}?" if closeness(best) >= 0.6 else ""


def to_dict(config: Config) -> dict[str, Any]:
    """Convert a configuration to JSON types."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config))


def from_dict(values: Any) -> Config:
    """Build a configuration from the values of `to_dict`. Missing keys get their defaults.

    Earlier names and values of options are migrated (`migrations`).

    Raises:
        UserError: An unknown key, a value of another type, or an impossible value.
    """
    return _section(Config, migrate(values) if isinstance(values, Mapping) else values, "")


def _is_section(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint)


def _section(kind: type, values: Any, prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise UserError(f"{prefix.rstrip('.') or 'the configuration'} is {values!r}: must be an object of named values")
    hints = get_type_hints(kind)
    for name in values:
        if name not in hints:
            known = [*(prefix + hint for hint in hints), *keys()]
            raise UserError(f"unknown key {prefix}{name}{suggestion(f'{prefix}{name}', known)}")
    return kind(**{name: _value(hints[name], value, prefix + name) for name, value in values.items()})


def _value(hint: Any, value: Any, key: str) -> Any:
    """Convert `value` to the field type: a section, str, int, float, bool, Path, Literal, or one of these or None."""
    if _is_section(hint):
        return _section(hint, value, f"{key}.")
    if get_origin(hint) in (UnionType, Union):  # Literal | None is the second
        (hint,) = (option for option in get_args(hint) if option is not type(None))
        return None if value is None else _value(hint, value, key)
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        require(value in choices, f"{key} is {value!r}: must be one of {', '.join(map(repr, choices))}")
        return value
    accepted, noun = {
        str: (str, "a text"),
        Path: (str, "a path"),
        int: (int, "a whole number"),
        float: (int | float, "a number"),
        bool: (bool, "true or false"),
    }[hint]
    require(
        isinstance(value, accepted) and (hint is bool or not isinstance(value, bool)),
        f"{key} is {value!r}: must be {noun}",
    )
    return hint(value)
