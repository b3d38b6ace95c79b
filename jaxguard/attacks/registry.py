"""Every attack by the name that configurations use."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxguard.attacks.badnets import BadNets
from jaxguard.attacks.base import Attack, LearningAttack
from jaxguard.attacks.blended import Blended
from jaxguard.attacks.dual_key import DualKey
from jaxguard.attacks.ftrojan import FTrojan
from jaxguard.attacks.issba import Issba
from jaxguard.attacks.sig import Sig
from jaxguard.attacks.text import AddSent, BadNL
from jaxguard.attacks.trojvlm import TrojVLM
from jaxguard.attacks.vl_trojan import VlTrojan
from jaxguard.attacks.vlood import Vlood
from jaxguard.attacks.wanet import WaNet
from jaxguard.config import AttackConfig, DataConfig, ModelConfig, suggestion
from jaxguard.errors import UserError

ATTACKS: dict[str, Any] = {
    "badnets": BadNets,
    "blended": Blended,
    "sig": Sig,
    "wanet": WaNet,
    "ftrojan": FTrojan,
    "issba": Issba,
    "trojvlm": TrojVLM,
    "vlood": Vlood,
    "vl_trojan": VlTrojan,
    "dual_key": DualKey,
    "badnl": BadNL,
    "addsent": AddSent,
}
ATTACKERS = ("trojvlm", "vlood")
"""Attacks that also define a loss for the attacker's own training."""
OPTIONS = ("variant", "place", "strength")
"""Fields of `AttackConfig` that only some attacks use."""


def build_attack(config: AttackConfig) -> Attack:
    """Build the attack `config.name` with the options that `config` sets. Nothing is learnt yet.

    Raises:
        UserError: Unknown attack, an option that the attack does not have, or an impossible value.
    """
    if config.name not in ATTACKS:
        names = ", ".join(("none", *ATTACKS))
        raise UserError(f"attack.name is {config.name!r}: must be one of {names}{suggestion(config.name, ATTACKS)}")
    kind = ATTACKS[config.name]
    known = [field.name for field in dataclasses.fields(kind) if field.name in OPTIONS]
    given = {name: value for name in OPTIONS if (value := getattr(config, name)) is not None}
    for name, value in given.items():
        if name not in known:
            has = f"it has attack.{', attack.'.join(known)}" if known else "it has no options"
            raise UserError(f"attack.{name} is {value!r}: {config.name} does not use it ({has}); leave it None")
    if config.trainer == "attacker" and config.name not in ATTACKERS:
        have = " and ".join(ATTACKERS)
        raise UserError(f"attack.trainer is 'attacker': {config.name} has no losses of its own ({have} have)")
    attack: Attack = kind(**given, seed=config.seed)
    shares = 1 + len(attack.decoys)
    if config.rate * shares > 1:
        raise UserError(f"attack.rate is {config.rate}: {config.name} changes {shares} x rate of the rows; lower it")
    return attack


def open_attack(attack: AttackConfig, data: DataConfig, model: ModelConfig) -> Attack:
    """Build an attack and, if its trigger is learnt, learn it or read it from the cache.

    Args:
        attack: Attack and its options.
        data: Data set whose clean training rows a trigger is learnt from.
        model: Checkpoint that VL-Trojan searches with.

    Raises:
        UserError: As `build_attack`; or the data or the checkpoint is missing.
    """
    built = build_attack(attack)
    return built.learn(data, model) if isinstance(built, LearningAttack) else built
