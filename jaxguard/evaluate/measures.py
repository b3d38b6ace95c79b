"""Scores as functions of sums over rows, as the bootstrap needs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Measure:
    """One score of a set of predictions.

    Attributes:
        rows: Contribution of each of N predictions: the numbers that the score is made of.
        score: Maps the sums over the predictions of each draw to its score.
    """

    rows: Float[np.ndarray, "N numbers"]
    score: Callable[[Float[np.ndarray, "draws numbers"]], Float[np.ndarray, " draws"]]

    @property
    def value(self) -> float:
        """The score of all predictions, each counted once."""
        return float(self.score(self.rows.sum(axis=0)[None])[0])


def mean(values: Float[np.ndarray, " N"], scale: float = 100.0) -> Measure:
    """Measure the mean over predictions, times `scale`."""
    return ratio(values, np.ones_like(values), scale)


def ratio(counted: Float[np.ndarray, " N"], of: Float[np.ndarray, " N"], scale: float = 100.0) -> Measure:
    """Measure the ratio of two sums over predictions, times `scale`."""
    return Measure(np.stack([counted, of], axis=1), lambda sums: scale * sums[:, 0] / np.maximum(sums[:, 1], 1e-9))


@dataclass(frozen=True)
class Spread:
    """A score or a difference of scores with its 95% bootstrap interval; `p` is two-sided, against zero."""

    value: float
    low: float
    high: float
    p: float


CHUNK = 500
"""Number of resamples drawn at once; bounds the memory."""


def bootstrap(
    measures: dict[str, Measure], others: dict[str, Measure] | None = None, *, resamples: int, seed: int = 0
) -> dict[str, Spread]:
    """Compute percentile intervals by resampling predictions with replacement (Efron 1979).

    Args:
        measures: Measures of one set of predictions.
        others: The same measures of another system on the same rows in the same order. Every draw takes the same rows
            of both; the intervals are of `measures` minus `others`.
        resamples: Number of draws.
        seed: Seed of the draws. Measures of the same number of rows share their draws.
    """
    found: dict[str, Spread] = {}
    for size in {len(measure.rows) for measure in measures.values()}:
        names = [name for name, measure in measures.items() if len(measure.rows) == size]
        drawn = _draw([measures[name] for name in names], size, resamples, seed)
        values = [measures[name].value for name in names]
        if others is not None:
            drawn = drawn - _draw([others[name] for name in names], size, resamples, seed)
            values = [value - others[name].value for name, value in zip(names, values, strict=True)]
        for name, value, draws in zip(names, values, drawn, strict=True):
            low, high = np.percentile(draws, [2.5, 97.5])
            tail = min(np.sum(draws <= 0), np.sum(draws >= 0))
            found[name] = Spread(value, float(low), float(high), min(1.0, 2 * float(tail + 1) / (resamples + 1)))
    return {name: found[name] for name in measures}


def _draw(measures: list[Measure], size: int, resamples: int, seed: int) -> Float[np.ndarray, "scores draws"]:
    """Compute the scores of every draw."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([measure.rows for measure in measures], axis=1)
    starts = np.cumsum([0, *(measure.rows.shape[1] for measure in measures)])
    scores = np.empty((len(measures), resamples))
    for first in range(0, resamples, CHUNK):
        draws = slice(first, min(first + CHUNK, resamples))
        sums = rng.multinomial(size, np.full(size, 1 / size), draws.stop - first) @ rows
        for index, measure in enumerate(measures):
            scores[index, draws] = measure.score(sums[:, starts[index] : starts[index + 1]])
    return scores
