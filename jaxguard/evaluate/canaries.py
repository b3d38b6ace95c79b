"""One run against every attack of the registry."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from jaxguard.attacks.registry import ATTACKS
from jaxguard.config import AttackConfig
from jaxguard.errors import UserError
from jaxguard.evaluate.identity import Evaluation
from jaxguard.evaluate.run import Evaluator
from jaxguard.evaluate.scores import Scores


@dataclass(frozen=True)
class Canary:
    """One set of triggers tried on a run. `skipped` says why it could not be; then there are no scores."""

    name: str
    scores: Scores | None
    evaluation: Evaluation | None
    skipped: str | None = None


def canary_attacks(own: AttackConfig) -> dict[str, AttackConfig]:
    """List the attacks to try: the run's own with its options, then all others as published, for the same target."""
    first = {} if own.name == "none" else {own.name: own}
    return first | {
        name: AttackConfig(name=name, target=own.target, seed=own.seed) for name in ATTACKS if name not in first
    }


def try_canaries(evaluator: Evaluator, own: AttackConfig) -> list[Canary]:
    """Evaluate a run with the triggers of every attack, each into a folder of its own.

    Learnt triggers are learnt if they are not cached, which takes minutes. An attack that cannot be opened is skipped.
    """
    found = []
    for name, attack in canary_attacks(own).items():
        print(f"== {name}", file=sys.stderr)
        try:
            scores, evaluation = evaluator.test(attack)
        except UserError as error:
            found.append(Canary(name, None, None, str(error)))
        else:
            found.append(Canary(name, scores, evaluation))
    return found
