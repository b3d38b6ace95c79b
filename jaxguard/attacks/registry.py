"""Every attack by the name that configurations use."""

from __future__ import annotations

from collections.abc import Callable

from jaxguard.attacks.badnets import BadNets
from jaxguard.attacks.base import Attack
from jaxguard.config import AttackConfig

ATTACKS: dict[str, Callable[[AttackConfig], Attack]] = {"badnets": BadNets}
