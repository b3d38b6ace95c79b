"""When is a phrase suspicious too often to be a word of the data? The other phrases of the same rows tell.

Honest phrases are suspicious now and then, some more often than others. How often is a beta-binomial, fitted to the
phrases that are suspicious in at most half of their answers (an empirical null, Efron 2004: no clean rows are needed,
and poisoned phrases, which are suspicious nearly always, do not enter). The fit allows for what it leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from scipy.special import betaln
from scipy.stats import betabinom

SMALLEST = 5
"""Answers that a phrase must have, and suspicious ones that it must have to be convicted."""
PSEUDO = np.array([[1], [5]])
"""One phrase more, suspicious in one of five answers: rows without a suspicious token do not make the null certain."""


@dataclass(frozen=True)
class Null:
    """Number of suspicious answers of an honest phrase: beta-binomial(answers, a, b)."""

    a: float
    b: float

    @classmethod
    def fit(cls, suspicious: Int[np.ndarray, " N"], answers: Int[np.ndarray, " N"]) -> Null:
        """Fit to phrases by maximum likelihood, truncated at half of the answers.

        Args:
            suspicious: number of suspicious answers of each phrase.
            answers: number of answers of each phrase.
        """
        counts = np.stack([suspicious, answers])[:, suspicious <= answers // 2]
        (found, sizes), times = np.unique(np.concatenate([counts, PSEUDO], axis=1), axis=1, return_counts=True)
        distinct, place = np.unique(sizes, return_inverse=True)
        weights = np.bincount(place, times)

        def loss(logs: Float[np.ndarray, " 2"]) -> float:
            a, b = np.exp(logs)
            inside = np.log(betabinom.cdf(distinct // 2, distinct, a, b))
            return float(weights @ inside - times @ betabinom.logpmf(found, sizes, a, b))

        # b is at least 1: no more honest phrases are suspicious nearly always than half of the time.
        best = minimize(loss, [-2.0, 2.0], method="Nelder-Mead", bounds=[(-12.0, 3.0), (0.0, 9.0)])
        return cls(*np.exp(best.x).tolist())

    def p_values(self, suspicious: Int[np.ndarray, " N"], answers: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """Compute the chance that an honest phrase is suspicious at least as often."""
        return np.asarray(betabinom.sf(suspicious - 1, answers, self.a, self.b))

    def smallest(self, level: float, most: int) -> int | None:
        """Find the smallest number of answers, all suspicious, whose chance is at most `level`; None above `most`."""
        counts = np.arange(SMALLEST, most + 1)
        below = np.flatnonzero(betaln(self.a + counts, self.b) - betaln(self.a, self.b) <= np.log(level))
        return int(counts[below[0]]) if len(below) else None


def benjamini_hochberg(p_values: Float[np.ndarray, " N"], rate: float) -> Bool[np.ndarray, " N"]:
    """Choose the hypotheses to reject so that at most `rate` of those rejected are expected to be true.

    Source: Benjamini and Hochberg, 1995.
    """
    ordered = np.sort(p_values)
    below = np.flatnonzero(ordered <= rate * np.arange(1, len(ordered) + 1) / max(len(ordered), 1))
    return p_values <= (ordered[below[-1]] if len(below) else -1.0)
