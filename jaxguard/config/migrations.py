"""Options that had other names or values once: what was written with them still loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxguard.errors import UserError

RENAMED: dict[str, str] = {
    "objective.cross": "objective.cross_view_weight",
    "objective.cross_warmup": "objective.cross_view_warmup",
    "objective.cross_schedule": "objective.cross_view_schedule",
    "objective.entropy": "objective.entropy_weight",
    "train.final": "train.final_lr_ratio",
    "train.clip": "train.max_grad_norm",
}
"""First name of an option -> its name today."""

REPLACED: dict[str, dict[Any, Any]] = {"model.remat": {True: "full", False: "none"}}
"""Option -> a value that it once had -> what stands for it today."""


def migrate(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a stored configuration, nested by section, under today's names.

    Raises:
        UserError: an option stands there under both its names.
    """
    migrated = {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    for old, new in RENAMED.items():
        (section, name), (_, today) = old.split("."), new.split(".")
        found = migrated.get(section)
        if isinstance(found, dict) and name in found:
            if today in found:
                raise UserError(f"{old} and {new} are one option: the first is its old name; leave it out")
            found[today] = found.pop(name)
    for option, replacements in REPLACED.items():
        section, name = option.split(".")
        found = migrated.get(section)
        if isinstance(found, dict) and isinstance(found.get(name), bool):
            found[name] = replacements[found[name]]
    return migrated


def first_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values under every option's first name, so that what is derived from names never changes."""
    before = {new: old.split(".")[1] for old, new in RENAMED.items()}
    return {
        section: {before.get(f"{section}.{name}", name): value for name, value in found.items()}
        if isinstance(found, Mapping)
        else found
        for section, found in values.items()
    }


def renamed(name: str) -> str | None:
    """Today's name of an option that is given by an old one: dotted, as a flag, or its last part alone."""
    plain = name.lstrip("-")
    return RENAMED.get(plain) or next((new for old, new in RENAMED.items() if old.partition(".")[2] == plain), None)
