"""Every attack by the name that configurations use."""

from __future__ import annotations

from collections.abc import Callable

from jaxguard.attacks.badnets import BadNets
from jaxguard.attacks.base import Attack
from jaxguard.config import AttackConfig, suggestion
from jaxguard.errors import UserError

ATTACKS: dict[str, Callable[[AttackConfig], Attack]] = {"badnets": BadNets}


def build_attack(config: AttackConfig) -> Attack:
    """The attack that `config.name` names.

    Raises:
        UserError: there is none.
    """
    if config.name not in ATTACKS:
        known = ", ".join(("none", *ATTACKS))
        raise UserError(f"attack.name is {config.name!r}: must be one of {known}{suggestion(config.name, ATTACKS)}")
    return ATTACKS[config.name](config)
