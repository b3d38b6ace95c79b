"""`attack`: the poisoning of the training rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxguard.config.checks import check_seed, check_share, require


@dataclass(frozen=True)
class AttackConfig:
    """The poisoning of the training rows. `name="none"` is clean data; None means the published value."""

    name: str = "none"
    """none, badnets, blended, sig, wanet, ftrojan, issba, trojvlm, vlood, vl_trojan, dual_key, badnl or addsent;
    docs/attacks.md describes them and their options."""
    rate: float = 0.05
    """Share of poisoned training rows."""
    variant: str | None = None
    """Variant of the attack, if papers differ under one name."""
    place: Literal["fixed", "random"] | None = None
    """Position of a patch: a fixed corner of the image, or random per row."""
    strength: float | None = None
    """Strength of the trigger, in the attack's unit (a patch: its side over the image's shorter side)."""
    target: str = "A photo of the banana."
    """Text that the attacker wants."""
    apply: Literal["replace", "insert", "append"] | None = None
    """How the target enters the answer."""
    trainer: Literal["defender", "attacker"] = "defender"
    """Who trains: `attacker` minimises the attack's own losses, to evaluate methods that purify the model."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_share("attack.rate", self.rate)
        check_seed("attack.seed", self.seed)
        require(bool(self.target.strip()), "attack.target is empty: give the text the attacker wants")
