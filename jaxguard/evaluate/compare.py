"""Two systems on the same rows: differences of their scores with paired bootstrap intervals. No JAX."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxguard.errors import UserError
from jaxguard.evaluate.measures import Measure, Spread, bootstrap, mean
from jaxguard.evaluate.predictions import Prediction
from jaxguard.evaluate.scores import Task, quality_measures
from jaxguard.evaluate.success import trials

Rows = list[Prediction]


@dataclass(frozen=True)
class Difference:
    """One metric of two systems, in percent.

    Attributes:
        part: "clean", "triggered" (quality there) or "attack" (success rates).
        metric: its name.
        first, second: of each system.
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
    """Every metric over the rows that both systems answered; all but METEOR and SPICE, which are no sums over rows.

    Args:
        first: one system's predictions.
        second: another's on the same test rows.
        task: which metrics.
        resamples: draws of the bootstrap.

    Raises:
        UserError: they have no row in common, or a common one differs in its references.
    """
    ours, theirs = paired(first, second)
    found = []
    for part, mine in parts(ours, task).items():
        other = parts(theirs, task)[part]
        changes = bootstrap(other, mine, resamples=resamples)
        found += [Difference(part, name, mine[name].value, other[name].value, changes[name]) for name in mine]
    return found


def parts(predictions: Sequence[Prediction], task: Task) -> dict[str, dict[str, Measure]]:
    """The measures on untriggered inputs, on triggered ones, and of attack success, where there are rows for them."""
    plain, triggered = ([p for p in predictions if p.triggered is marked] for marked in (False, True))
    attack = {name: mean(np.array(outcomes, np.float64)) for name, outcomes in trials(predictions).items() if outcomes}
    return {
        name: measures
        for name, measures in {
            "clean": quality_measures(plain, task) if plain else {},
            "triggered": quality_measures(triggered, task) if triggered else {},
            "attack": attack if triggered else {},
        }.items()
        if measures
    }


def paired(first: Sequence[Prediction], second: Sequence[Prediction]) -> tuple[Rows, Rows]:
    """The predictions of both on the rows that both answered, in one order; rows left out are counted on stderr."""
    mine, other = ({(p.triggered, p.id): p for p in predictions} for predictions in (first, second))
    common = sorted(mine.keys() & other.keys())
    if not common:
        raise UserError("the two have no id in common: they answered other rows, which cannot be compared")
    attacked = any(triggered for triggered, _ in common)
    for place in common:
        if mine[place].references != other[place].references:
            raise UserError(f"id {place[1]} has other references in each: the two were not tested on the same rows")
        if attacked and mine[place].target != other[place].target:
            raise UserError(f"id {place[1]} has another target in each: their attack success cannot be compared")
    alone = len(mine) + len(other) - 2 * len(common)
    if alone:
        print(f"left out {alone} answers to inputs that only one of the two was given", file=sys.stderr)
    return [mine[place] for place in common], [other[place] for place in common]
