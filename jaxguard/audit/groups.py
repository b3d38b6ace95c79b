"""Groups of suspicious answers: phrases that begin with a suspicious token, and come so too often."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from jaxguard.audit.evidence import Evidence
from jaxguard.audit.significance import SMALLEST, Null, benjamini_hochberg

LONGEST = 4
"""Number of tokens of a phrase; fewer where the answer ends."""
SHARE = 0.9
"""Share of a convicted phrase's answers that must be suspicious there for the others to count as poisoned too."""


@dataclass(frozen=True)
class Group:
    """Answers that share a phrase.

    Attributes:
        phrase: its tokens.
        suspicious: number of answers whose first suspicious token begins it.
        answers: number of answers that hold it.
        rows: ids of the rows of these suspicious answers; of all answers that hold it where it is `everywhere`.
        p_value: chance that an honest phrase is suspicious so often; 1 where there are too few answers to tell.
        convicted: whether it is suspicious too often to be honest, at the audit's rate of false discoveries.
    """

    phrase: tuple[int, ...]
    suspicious: int
    answers: int
    rows: Int[np.ndarray, " N"]
    p_value: float
    convicted: bool

    @property
    def everywhere(self) -> bool:
        """True if it is convicted, and nearly all of its answers are suspicious: then all are left out."""
        return self.convicted and self.suspicious >= SHARE * self.answers


@dataclass(frozen=True)
class Groups:
    """Phrases with suspicious answers, the convicted ones first, and how they were judged.

    Attributes:
        found: the groups.
        tested: number of phrases, suspicious or not, that the rate of false discoveries is over.
        smallest: smallest number of answers of one phrase, all suspicious, that would have convicted it alone; None if
            no number of these answers would have.
    """

    found: list[Group]
    tested: int
    smallest: int | None

    @property
    def convicted(self) -> list[Group]:
        """The groups whose phrases are suspicious too often to be honest."""
        return [group for group in self.found if group.convicted]


def find_groups(evidence: Evidence, suspicious: Bool[np.ndarray, " N"], rate: float) -> Groups:
    """Group the answers by the phrase that begins at their first suspicious token, and judge the phrases.

    Args:
        evidence: its tokens are grouped.
        suspicious: true for suspicious tokens.
        rate: expected share of honest phrases among the convicted ones, at most.
    """
    phrases, number = np.unique(_phrases(evidence), axis=0, return_inverse=True)
    number, answers = number.reshape(-1), evidence.answers()
    held = np.unique(np.stack([number, answers]), axis=1)
    counts = np.bincount(held[0], minlength=len(phrases))
    marked = np.flatnonzero(suspicious)
    first = marked[np.unique(answers[marked], return_index=True)[1]]
    times = np.bincount(number[first], minlength=len(phrases))
    p_values, tested = np.ones(len(phrases)), counts >= SMALLEST
    null = Null.fit(times[tested], counts[tested])
    p_values[tested] = null.p_values(times[tested], counts[tested])
    convicted = np.zeros(len(phrases), bool)
    convicted[tested] = benjamini_hochberg(p_values[tested], rate)
    convicted &= times >= SMALLEST
    groups = []
    for phrase in np.flatnonzero(times):
        own = first[number[first] == phrase]
        if convicted[phrase] and times[phrase] >= SHARE * counts[phrase]:
            own = np.flatnonzero(number == phrase)
        words = tuple(int(token) for token in phrases[phrase] if token >= 0)
        judged = float(p_values[phrase]), bool(convicted[phrase])
        groups.append(Group(words, int(times[phrase]), int(counts[phrase]), np.unique(evidence.rows[own]), *judged))
    groups.sort(key=lambda group: (-group.convicted, -group.suspicious, group.phrase))
    tests, most = int(tested.sum()), int(answers.max(initial=-1)) + 1
    return Groups(groups, tests, null.smallest(rate / max(tests, 1), most))


def convicted_tokens(evidence: Evidence, groups: Groups) -> Bool[np.ndarray, " N"]:
    """True where a phrase begins that is convicted everywhere, also where it did not look suspicious."""
    phrases = _phrases(evidence)
    found = np.zeros(len(phrases), bool)
    for group in groups.found:
        if group.everywhere:
            padded = [*group.phrase, *[-1] * (LONGEST - len(group.phrase))]
            found |= (phrases == padded).all(axis=1)
    return found


def _phrases(evidence: Evidence) -> Int[np.ndarray, "N phrase"]:
    """The tokens from each one on, up to the end of its answer; -1 behind that."""
    answers = np.append(evidence.answers(), np.full(LONGEST, -1))
    tokens = np.append(evidence.tokens, np.full(LONGEST, -1))
    size = len(evidence.tokens)
    columns = [
        np.where(answers[ahead : ahead + size] == answers[:size], tokens[ahead : ahead + size], -1)
        for ahead in range(LONGEST)
    ]
    return np.stack(columns, axis=1)
