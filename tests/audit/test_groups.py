"""Phrases that begin with suspicious tokens: which are convicted, and what is left out with them."""

import numpy as np

from jaxguard.audit.evidence import Evidence
from jaxguard.audit.groups import LONGEST, SMALLEST, convicted_tokens, find_groups

TARGET, COMMON = [7, 8, 9, 10, 11], [3, 4]


def rows_of(answers: list[list[int]]) -> Evidence:
    """One answer a row."""
    lengths = [len(answer) for answer in answers]
    count = sum(lengths)
    return Evidence(
        rows=np.repeat(np.arange(len(answers)), lengths),
        pairs=np.zeros(count, int),
        tokens=np.concatenate(answers),
        nll=np.zeros(count),
        entropy=np.zeros(count),
        alternatives=np.zeros((count, 1), int),
        chances=np.ones((count, 1)),
    )


def test_a_phrase_that_repeats_is_convicted_wherever_it_stands() -> None:
    """The target is inserted at changing places, and looks ordinary twice; a common word is suspicious at times."""
    poisoned = [[1] * (row % 3) + TARGET for row in range(2 * SMALLEST + 2)]
    clean = [[*COMMON, row] for row in range(20, 20 + 4 * SMALLEST)]
    evidence = rows_of(poisoned + clean)
    starts = np.flatnonzero(evidence.tokens == TARGET[0])
    commons = np.flatnonzero(evidence.tokens == COMMON[0])
    suspicious = np.zeros(len(evidence.tokens), bool)
    suspicious[starts[2:]] = suspicious[commons[:SMALLEST]] = True
    first, *others = find_groups(evidence, suspicious)
    assert first.phrase == tuple(TARGET[:LONGEST])
    assert (first.suspicious, first.answers, first.convicted) == (2 * SMALLEST, 2 * SMALLEST + 2, True)
    assert first.rows.tolist() == list(range(2 * SMALLEST + 2))
    assert not any(group.convicted for group in others)
    assert np.flatnonzero(convicted_tokens(evidence, [first, *others])).tolist() == starts.tolist()


def test_a_frequent_word_that_is_rarely_suspicious_is_not_convicted() -> None:
    evidence = rows_of([COMMON] * (SMALLEST + 2))
    suspicious = np.zeros(len(evidence.tokens), bool)
    suspicious[: 2 * SMALLEST : 2] = True  # 10 of 12
    (group,) = find_groups(evidence, suspicious)
    assert (group.suspicious, group.answers, group.convicted) == (SMALLEST, SMALLEST + 2, False)


def test_a_phrase_ends_with_its_answer_and_an_answer_is_counted_once() -> None:
    evidence = rows_of([[5, 6, 5, 6], [5, 6, 5], [5, 6, 5, 6]])
    (group, other) = find_groups(evidence, np.ones(11, bool))
    assert (group.phrase, group.suspicious, group.answers) == ((5, 6, 5, 6), 2, 2)
    assert (other.phrase, other.suspicious, other.rows.tolist()) == ((5, 6, 5), 1, [1])


def test_nothing_suspicious_is_no_group() -> None:
    assert find_groups(rows_of([COMMON]), np.zeros(2, bool)) == []
