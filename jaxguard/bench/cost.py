"""A table's steps side by side: time and memory of each method's step."""

from __future__ import annotations

from jaxguard.bench.step import COLUMNS, Case, measure
from jaxguard.bench.timing import publish
from jaxguard.config import to_dict
from jaxguard.experiments.grid import Cost
from jaxguard.version import commit


def run_cost(cost: Cost, command: str) -> None:
    """Time the steps, taking turns; cost.md and cost.json go to `cost.out`."""
    rows = measure({name: Case(config) for name, config in cost.steps.items()}, cost.rounds)
    configs = {name: to_dict(config) for name, config in cost.steps.items()}
    publish("cost", command, rows, COLUMNS, cost.out, rounds=cost.rounds, commit=commit(), configs=configs)
