"""What a run's steps cost: chips x price x steps x time of a step. No JAX."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from jaxguard.errors import UserError
from jaxguard.train.metrics import Record


@dataclass(frozen=True)
class Price:
    """The price of the steps of a run.

    Attributes:
        steps, seconds, chips: Number of steps, time of one, number of chips.
        per_hour: Price of one chip for an hour, as the user gave it.
        source: Where the time is from.
        least: True if the time is a lower bound.
    """

    steps: int
    seconds: float
    chips: int
    per_hour: float
    source: str
    least: bool

    @property
    def total(self) -> float:
        """In the unit of the price."""
        return self.steps * self.seconds / 3600 * self.chips * self.per_hour

    def __str__(self) -> str:
        """Tell the product, and what is not in it."""
        return (
            f"{self.steps} steps x {self.seconds:.3f} s ({self.source}) x {self.chips} chips x {self.per_hour:g} an "
            f"hour {'>=' if self.least else '='} {self.total:.2f}; start, compilation, evaluation and waiting come on "
            "top"
        )


def measured_seconds(records: Sequence[Record]) -> tuple[float, str]:
    """Find the median time of a step in a run's metrics, and say where it is from.

    Raises:
        UserError: No step was timed.
    """
    times = [record["step_seconds"] for record in records if "step_seconds" in record]
    if not times:
        raise UserError("no step of the run was timed; give --step_seconds")
    return statistics.median(times), f"measured: median of {len(times)} logged times"
