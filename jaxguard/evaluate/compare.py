"""Differences of two systems' scores on the same rows, with paired bootstrap intervals. No JAX."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxguard.errors import UserError
from jaxguard.evaluate.identity import Evaluation
from jaxguard.evaluate.measures import Measure, Spread, bootstrap, mean
from jaxguard.evaluate.predictions import Prediction
from jaxguard.evaluate.scores import Task, quality_measures
from jaxguard.evaluate.success import trials

Rows = list[Prediction]


@dataclass(frozen=True)
class Difference:
    """One metric of two systems, in percent.

    Attributes:
        part: "clean" or "recovery" (quality on clean or triggered inputs), or "attack" (success rates).
        metric: Name of the metric.
        first, second: Score of each system.
        change: `second` minus `first`.
    """

    part: str
    metric: str
    first: float
    second: float
    change: Spread


def compare(
    first: Sequence[Prediction], second: Sequence[Prediction], task: Task, *, resamples: int
) -> list[Difference]:
    """Compare every metric over the rows that both systems answered.

    METEOR and SPICE are left out: they are not sums over rows.

    Args:
        first: Predictions of one system.
        second: Predictions of another on the same test rows.
        task: Selects the metrics.
        resamples: Number of bootstrap draws.

    Raises:
        UserError: No row in common, or a common row with different references or targets.
    """
    first, second = paired(first, second)
    differences = []
    for part, before in parts(first, task).items():
        after = parts(second, task)[part]
        changes = bootstrap(after, before, resamples=resamples)
        differences += [Difference(part, name, before[name].value, after[name].value, changes[name]) for name in before]
    return differences


def differing(first: Evaluation, second: Evaluation) -> list[str]:
    """List what else differs between two evaluations than the systems, in one line each."""
    one, other = first.identity, second.identity
    if one is None or other is None:
        return []
    same = {
        "triggers": (one.triggers, other.triggers),
        "triggered inputs": tuple((i.attack or {}).get("trigger") for i in (one, other)),
        "test rows": ((one.data, one.questions), (other.data, other.questions)),
        "beams": (one.beams, other.beams),
        "largest numbers of tokens": (one.new_tokens, other.new_tokens),
    }
    found = [f"their {name} differ" for name, (mine, its) in same.items() if mine != its]
    return found + [f"{i.unfinished}" for i in (one, other) if i.unfinished]


def parts(predictions: Sequence[Prediction], task: Task) -> dict[str, dict[str, Measure]]:
    """Measure clean quality, recovery and attack success; parts without rows are left out."""
    clean, triggered = ([p for p in predictions if p.triggered is marked] for marked in (False, True))
    attack = {name: mean(np.array(outcomes, np.float64)) for name, outcomes in trials(predictions).items() if outcomes}
    return {
        name: measures
        for name, measures in {
            "clean": quality_measures(clean, task) if clean else {},
            "recovery": quality_measures(triggered, task) if triggered else {},
            "attack": attack if triggered else {},
        }.items()
        if measures
    }


def paired(first: Sequence[Prediction], second: Sequence[Prediction]) -> tuple[Rows, Rows]:
    """Pair the predictions by (triggered, id); the number of unpaired ones is printed to stderr."""
    one, other = ({(p.triggered, p.id): p for p in predictions} for predictions in (first, second))
    common = sorted(one.keys() & other.keys())
    if not common:
        raise UserError("the two files have no id in common: give predictions for the same test rows")
    attacked = any(triggered for triggered, _ in common)
    for key in common:
        if one[key].references != other[key].references:
            raise UserError(
                f"id {key[1]} has different references in the two files: give predictions for the same rows"
            )
        if attacked and one[key].target != other[key].target:
            raise UserError(f"id {key[1]} has different targets in the two files: attack success cannot be compared")
    unpaired = len(one) + len(other) - 2 * len(common)
    if unpaired:
        print(f"left out {unpaired} predictions for inputs that only one of the two files has", file=sys.stderr)
    return [one[key] for key in common], [other[key] for key in common]
