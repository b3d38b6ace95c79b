"""The channel: how rows put into words what the reference says of their inputs.

Rows may name what the reference sees by other words: other styles, other languages, words that it has never met. The
channel translates one token by one token (IBM model 1, Brown et al. 1993, with a bigram for what the token before
decides):

    P(y | context) = (1 - m[y']) sum_v P_ref(v | context) T[v, y] + m[y'] B[y', y]

where y' is the answer token before y. T, B and m come from the rows themselves by expectation maximisation. A trigger
is not among what the reference says, so the channel cannot tie a target to it: the first token that sets a target
apart stays as surprising as poisoned rows are rare. Every token is scored by a channel that has not seen its row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int

from jaxguard.audit.evidence import Evidence

ROUNDS = 20
"""Rounds of expectation maximisation."""
FLOOR = 1e-3
"""Count that every translation and every bigram has beside its own."""
PRIOR = 100.0
"""Count of words at large that every word of the reference has beside its own translations."""
CHUNK = 8192
"""Tokens whose predictions are in memory at once."""


@dataclass(frozen=True)
class Scores:
    """NLL of each answer token under the channel, and the entropy of what it predicts there; nats."""

    nll: Float[np.ndarray, " N"]
    entropy: Float[np.ndarray, " N"]

    @property
    def surprise(self) -> Float[np.ndarray, " N"]:
        """NLL beyond what was to be expected."""
        return self.nll - self.entropy


def score(evidence: Evidence) -> Scores:
    """Score every answer token by a channel learnt from the other half of the rows (halves by the parity of ids)."""
    problem = _Problem(evidence)
    nll, entropy = np.zeros(len(evidence.tokens)), np.zeros(len(evidence.tokens))
    odd = evidence.rows % 2 == 1
    for half in (odd, ~odd):
        nll[half], entropy[half] = problem.predict(problem.learn(~half), half)
    return Scores(nll, entropy)


@dataclass(frozen=True)
class _Channel:
    """Values of T and B, one for each pair of a problem, and of m."""

    translation: Float[np.ndarray, " _"]
    bigram: Float[np.ndarray, " _"]
    share: Float[np.ndarray, " _"]


class _Pairs:
    """The distinct pairs of a number `left` and a word, and probabilities of the words beside each `left`."""

    def __init__(self, left: Int[np.ndarray, "*N"], words: Int[np.ndarray, "*N"]):
        self.lefts, self.words = int(left.max(initial=-1)) + 1, int(words.max(initial=-1)) + 1
        codes, self.place = np.unique(left * self.words + words, return_inverse=True)
        self._left, self._word = np.divmod(codes, self.words)

    def uniform(self) -> Float[np.ndarray, " N"]:
        """Every word alike."""
        return np.full(len(self._left), 1.0 / self.words)

    def normalised(self, places: Int[np.ndarray, "*N"], counts: Float[np.ndarray, "*N"]) -> Float[np.ndarray, " _"]:
        """Counts of pairs as probabilities."""
        summed = np.bincount(places.ravel(), counts.ravel(), minlength=len(self._left))
        whole = np.bincount(self._left, summed, minlength=self.lefts)
        common = np.bincount(self._word, summed, minlength=self.words) + FLOOR
        return (summed + PRIOR * (common / common.sum())[self._word]) / (whole + PRIOR)[self._left]

    def matrix(self, values: Float[np.ndarray, " N"]) -> scipy.sparse.csr_array:
        """Probabilities of the words (columns) beside each `left` (rows)."""
        return scipy.sparse.csr_array((values, (self._left, self._word)), shape=(self.lefts, self.words))


class _Problem:
    """The tokens in numbers that count from 0: words `y`, what came before, and what the reference says, `v`."""

    def __init__(self, evidence: Evidence):
        _, v = np.unique(evidence.alternatives, return_inverse=True)
        v = v.reshape(evidence.alternatives.shape)
        self.v = np.pad(v, ((0, 0), (0, 1)), constant_values=v.max(initial=-1) + 1)  # the last one: any other token
        chances = evidence.chances.astype(np.float64)
        self.chances = np.column_stack([chances, np.maximum(1.0 - chances.sum(axis=1), 1e-6)])
        _, y = np.unique(evidence.tokens, return_inverse=True)
        _, self.before = np.unique(evidence.before(), return_inverse=True)
        self.translations = _Pairs(self.v, np.broadcast_to(y[:, None], self.v.shape))
        self.bigrams = _Pairs(self.before, y)

    def learn(self, where: Bool[np.ndarray, " N"]) -> _Channel:
        """Expectation maximisation over some tokens, from a channel that knows nothing."""
        before, kinds = self.before[where], self.bigrams.lefts
        translated, followed = self.translations.place.reshape(self.v.shape)[where], self.bigrams.place[where]
        channel = _Channel(self.translations.uniform(), self.bigrams.uniform(), np.full(kinds, 0.5))
        seen = np.bincount(before, minlength=kinds)
        for _ in range(ROUNDS):
            said, habit = self._terms(channel, where)
            total = said.sum(axis=1) + habit
            said, habit = said / total[:, None], habit / total
            channel = _Channel(
                self.translations.normalised(translated, said),
                self.bigrams.normalised(followed, habit),
                (np.bincount(before, habit, minlength=kinds) + 1) / (seen + 2),
            )
        return channel

    def predict(
        self, channel: _Channel, where: Bool[np.ndarray, " N"]
    ) -> tuple[Float[np.ndarray, " A"], Float[np.ndarray, " A"]]:
        """NLL and entropy of some tokens. Words that were never seen beside what is said here count as one."""
        said, habit = self._terms(channel, where)
        translation, bigram = self.translations.matrix(channel.translation), self.bigrams.matrix(channel.bigram)
        tokens, entropies = np.flatnonzero(where), []
        for start in range(0, len(tokens), CHUNK):
            part = tokens[start : start + CHUNK]
            share, ends = channel.share[self.before[part]], np.arange(0, self.v[part].size + 1, self.v.shape[1])
            weights = (1 - share)[:, None] * self.chances[part]
            shape = len(part), self.translations.lefts
            spoken = scipy.sparse.csr_array((weights.ravel(), self.v[part].ravel(), ends), shape=shape)
            chances = spoken @ translation + scipy.sparse.diags_array(share) @ bigram[self.before[part]]
            unseen = np.maximum(1.0 - np.asarray(chances.sum(axis=1)), 1e-9)
            chances.data *= -np.log(chances.data)
            entropies.append(np.asarray(chances.sum(axis=1)) - unseen * np.log(unseen))
        return -np.log(said.sum(axis=1) + habit), np.concatenate([*entropies, np.zeros(0)])

    def _terms(
        self, channel: _Channel, where: Bool[np.ndarray, " N"]
    ) -> tuple[Float[np.ndarray, "A alternatives"], Float[np.ndarray, " A"]]:
        """The summands of P(y | context), by what the reference says and by habit."""
        share = channel.share[self.before[where]]
        translated = channel.translation[self.translations.place.reshape(self.v.shape)[where]]
        return (1 - share)[:, None] * self.chances[where] * translated, share * channel.bigram[
            self.bigrams.place[where]
        ]
