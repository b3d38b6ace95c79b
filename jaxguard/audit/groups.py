"""Groups of suspicious answers: phrases that begin with a suspicious token and come again and again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from jaxguard.audit.evidence import Evidence

LONGEST = 4
"""Number of tokens of a phrase; fewer where the answer ends."""
SMALLEST = 10
"""Number of suspicious answers that convict a phrase."""
SHARE = 0.9
"""Share of a phrase's answers that must be suspicious there to convict it: words of the data are so now and then."""


@dataclass(frozen=True)
class Group:
    """Answers that share a phrase.

    Attributes:
        phrase: its tokens.
        suspicious: number of answers in which its first token is suspicious.
        answers: number of answers that hold it.
        rows: ids of the rows of these answers.
    """

    phrase: tuple[int, ...]
    suspicious: int
    answers: int
    rows: Int[np.ndarray, " N"]

    @property
    def convicted(self) -> bool:
        """True if the phrase comes too often, and is suspicious too often, to be a word of the data."""
        return self.suspicious >= SMALLEST and self.suspicious >= SHARE * self.answers


def find_groups(evidence: Evidence, suspicious: Bool[np.ndarray, " N"]) -> list[Group]:
    """Group the answers by the phrase that begins at their first suspicious token; the most frequent first."""
    if not suspicious.any():
        return []
    phrases, answers = _phrases(evidence), evidence.answers()
    _, number = np.unique(phrases, axis=0, return_inverse=True)
    number = number.reshape(-1)
    marked = np.flatnonzero(suspicious)
    _, first = np.unique(answers[marked], return_index=True)
    found, counts = np.unique(number[marked[first]], return_counts=True)
    wanted = np.isin(number, found)
    places = np.flatnonzero(wanted)[np.argsort(number[wanted], kind="stable")]
    groups = []
    for count, own in zip(counts, np.split(places, np.flatnonzero(np.diff(number[places])) + 1), strict=True):
        phrase = tuple(int(token) for token in phrases[own[0]] if token >= 0)
        held = len(np.unique(answers[own]))
        groups.append(Group(phrase, int(count), held, np.unique(evidence.rows[own])))
    return sorted(groups, key=lambda group: (-group.convicted, -group.suspicious, group.phrase))


def convicted_tokens(evidence: Evidence, groups: list[Group]) -> Bool[np.ndarray, " N"]:
    """True where a convicted phrase begins, also where it did not look suspicious."""
    phrases = _phrases(evidence)
    found = np.zeros(len(phrases), bool)
    for group in groups:
        if group.convicted:
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
