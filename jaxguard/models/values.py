"""Values of a checkpoint's JSON files: their types and ranges. Imports no JAX."""

from __future__ import annotations

import math
from typing import Any, get_args, get_type_hints

ZERO_OR_MORE = {"additional_vocab_size", "image_token_index", "num_register_tokens"}
"""Whole numbers that may be 0; the others are counts and widths of at least 1."""
ANY = {"vision_feature_layer"}
"""Whole numbers that may be negative."""


def whole(values: dict[str, Any], name: str, default: int, part: str = "") -> int:
    """Return a positive whole number of a JSON object.

    Args:
        values: the object.
        name: of its entry.
        default: if it is absent or null.
        part: where the object is in the file, for errors.

    Raises:
        ValueError: the entry is something else.
    """
    value = values.get(name)
    return default if value is None else check(name, value, int, part)


def check(name: str, value: Any, kind: Any, part: str = "") -> Any:
    """Return the value of an entry.

    Args:
        name: of the entry.
        value: what the file says.
        kind: `int`, `float`, `bool`, `str`, a union of types, or something else, which is not checked.
        part: where the entry is in the file, for errors.

    Raises:
        ValueError: it is of another type, or out of range.
    """
    allowed = get_args(kind) or (kind,)
    where = f"{part}.{name}" if part else name
    if isinstance(value, tuple):  # no JSON value: a family made and checks it
        return value
    if float in allowed:
        if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
            raise ValueError(f"{where} is {value!r}: must be a number of at least 0")
    elif int in allowed:
        least = None if name in ANY else 0 if name in ZERO_OR_MORE else 1
        if type(value) is not int or (least is not None and value < least):
            said = "a whole number" if least is None else f"a whole number of at least {least}"
            raise ValueError(f"{where} is {value!r}: must be {said}")
    elif (bool in allowed or str in allowed) and type(value) not in allowed:
        raise ValueError(f"{where} is {value!r}: must be {'true or false' if bool in allowed else 'a text'}")
    return value


def kinds(dataclass: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields."""
    return get_type_hints(dataclass)
