"""Migration of options with earlier names or values, so that old run folders still load."""

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
"""Option -> earlier value -> its value today."""


def migrate(values: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the options of a stored configuration, nested by section, to today's names.

    Raises:
        UserError: An option is given under both names.
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
    """Rename options to their first names, so that digests of configurations never change."""
    before = {new: old.split(".")[1] for old, new in RENAMED.items()}
    return {
        section: {before.get(f"{section}.{name}", name): value for name, value in found.items()}
        if isinstance(found, Mapping)
        else found
        for section, found in values.items()
    }


def renamed(name: str) -> str | None:
    """Find today's name of an option from an old one: dotted, as a flag, or its last part only."""
    plain = name.lstrip("-")
    return RENAMED.get(plain) or next((new for old, new in RENAMED.items() if old.partition(".")[2] == plain), None)
