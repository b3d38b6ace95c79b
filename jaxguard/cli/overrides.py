"""What an override on the command line implies for the other values of a configuration file."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from jaxguard.attacks.registry import ATTACKERS, OPTIONS
from jaxguard.config import Config
from jaxguard.errors import UserError


def settle(before: Config, after: Config, tokens: Sequence[str]) -> Config:
    """Drop or shorten what the file says for its own attack and length, where an override changes these; say so.

    Args:
        before: Configuration of the file.
        after: The same with the overrides.
        tokens: The overrides.

    Raises:
        UserError: Steps and epochs are both given.
    """
    given = {token.partition("=")[0].lstrip("-").replace("-", "_") for token in tokens if token.startswith("--")}
    if {"train.steps", "train.epochs"} <= given:
        raise UserError("--train.steps and --train.epochs say the same in two units: give one of them")
    if "train.steps" in given:
        after = dataclasses.replace(after, train=dataclasses.replace(after.train, epochs=None))
    return _settle_warmup(_settle_attack(before, after, given), given)


def _settle_attack(before: Config, after: Config, given: set[str]) -> Config:
    """Leave out options of the file's attack that were not given for another one: their units differ."""
    attack = after.attack
    if attack.name in (before.attack.name, "none"):
        return after
    stale = {name: getattr(attack, name) for name in OPTIONS if f"attack.{name}" not in given}
    dropped: dict[str, Any] = {name: None for name, value in stale.items() if value is not None}
    if attack.trainer == "attacker" and attack.name not in ATTACKERS and "attack.trainer" not in given:
        dropped["trainer"] = "defender"
    if not dropped:
        return after
    left = ", ".join(f"attack.{name} {getattr(attack, name)}" for name in dropped)
    print(f"note: {left}: of {before.attack.name}, left out for {attack.name}", file=sys.stderr)
    return dataclasses.replace(after, attack=dataclasses.replace(attack, **dropped))


def _settle_warmup(config: Config, given: set[str]) -> Config:
    """Shorten the file's warm-up of lambda to a number of steps given on the command line."""
    objective, steps = config.objective, config.train.steps
    if "train.steps" not in given or "objective.cross_view_warmup" in given or objective.cross_view_warmup <= steps:
        return config
    print(
        f"note: objective.cross_view_warmup {objective.cross_view_warmup} is shortened to train.steps ({steps})",
        file=sys.stderr,
    )
    return dataclasses.replace(config, objective=dataclasses.replace(objective, cross_view_warmup=steps))
