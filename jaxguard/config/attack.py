"""`attack`: what an attacker planted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxguard.config.checks import check_seed, check_share, require


@dataclass(frozen=True)
class AttackConfig:
    """What an attacker planted. `name="none"` is clean data; None stands for what the attack's authors published."""

    name: str = "none"
    """One of jaxguard/attacks/registry.py; docs/attacks.md tells what each does with the options below."""
    rate: float = 0.05
    """Share of the training rows that are poisoned."""
    variant: str | None = None
    """Where papers disagree under one name: which of them."""
    place: Literal["fixed", "random"] | None = None
    """Of a patch: a fixed corner of the image, or a place drawn per row."""
    strength: float | None = None
    """How strong the trigger is, in the attack's own unit (a patch: its side over the image's shorter side)."""
    target: str = "A photo of the banana."
    apply: Literal["replace", "insert", "append"] | None = None
    """How the target enters the answer."""
    trainer: Literal["defender", "attacker"] = "defender"
    """Who trains: `attacker` minimises the attack's own losses, for judging what is left to purify."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_share("attack.rate", self.rate)
        check_seed("attack.seed", self.seed)
        require(bool(self.target.strip()), "attack.target is empty: give the text the attacker wants")
