"""Which objective a configuration stands for."""

from __future__ import annotations

from collections.abc import Callable

from jaxguard.config import AttackConfig, ObjectiveConfig
from jaxguard.objective.attackers import TrojVlm, Vlood
from jaxguard.objective.base import Objective
from jaxguard.objective.paper import Paper

ATTACKERS: dict[str, Callable[[], Objective]] = {"trojvlm": TrojVlm, "vlood": Vlood}
"""By the attack whose authors train with it."""


def build_objective(objective: ObjectiveConfig, attack: AttackConfig, *, steps: int, end_token: int) -> Objective:
    """The objective of a run.

    Args:
        objective: weights and switches of the defender's.
        attack: says who trains; an attacker minimises the attack's own losses.
        steps: number of optimizer steps, for schedules.
        end_token: id of the token that ends an answer.
    """
    if attack.trainer == "attacker":
        return ATTACKERS[attack.name]()
    return for_defender(Paper(objective, steps, end_token))


def for_defender(objective: Objective) -> Objective:
    """The objective, once it is certain that it cannot see which rows are poisoned.

    Raises:
        ValueError: it asks for the labels.
    """
    if objective.needs.labels:
        raise ValueError(f"{type(objective).__name__} reads which rows are poisoned: only an attacker's objective may")
    return objective
