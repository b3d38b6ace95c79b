"""Phrases that begin with suspicious tokens: which are convicted, and what is left out with them."""

import numpy as np

from jaxguard.audit.evidence import Evidence
from jaxguard.audit.groups import LONGEST, convicted_tokens, find_groups

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


def words(count: int, times: int) -> list[list[int]]:
    """Honest answers: each of `count` phrases in `times` answers."""
    return [[100 + number, 200 + number, 300 + number] for number in range(count) for _ in range(times)]


def test_a_phrase_that_repeats_is_convicted_wherever_it_stands() -> None:
    """The target is inserted at changing places, and looks ordinary twice; other words are suspicious at times."""
    poisoned = [[1] * (row % 3) + TARGET for row in range(22)]
    evidence = rows_of(poisoned + words(60, 10))
    starts = np.flatnonzero(evidence.tokens == TARGET[0])
    honest = np.flatnonzero((evidence.tokens >= 100) & (evidence.tokens < 200))
    suspicious = np.zeros(len(evidence.tokens), bool)
    suspicious[starts[2:]] = suspicious[honest[::13]] = True
    groups = find_groups(evidence, suspicious, 0.01)
    first, *others = groups.found
    assert first.phrase == tuple(TARGET[:LONGEST])
    assert (first.suspicious, first.answers, first.convicted, first.everywhere) == (20, 22, True, True)
    assert first.rows.tolist() == list(range(22))
    assert groups.convicted == [first]
    assert len(others) > 30
    assert np.flatnonzero(convicted_tokens(evidence, groups)).tolist() == starts.tolist()


def test_a_phrase_of_the_data_that_is_suspicious_in_some_rows_is_left_out_in_these_alone() -> None:
    """A plausible target: an answer that is right elsewhere."""
    evidence = rows_of([COMMON] * 60 + words(60, 10))
    starts = np.flatnonzero(evidence.tokens == COMMON[0])
    suspicious = np.zeros(len(evidence.tokens), bool)
    honest = np.flatnonzero((evidence.tokens >= 100) & (evidence.tokens < 200))
    suspicious[starts[:40]] = suspicious[honest[::13]] = True
    groups = find_groups(evidence, suspicious, 0.01)
    (group,) = groups.convicted
    assert (group.suspicious, group.answers, group.convicted, group.everywhere) == (40, 60, True, False)
    assert group.rows.tolist() == list(range(40))
    assert not convicted_tokens(evidence, groups).any()


def test_the_smallest_count_is_where_conviction_begins() -> None:
    def judged(count: int) -> tuple[bool, int | None]:
        evidence = rows_of([TARGET] * count + words(40, 20))
        honest = np.flatnonzero((evidence.tokens >= 100) & (evidence.tokens < 200))
        suspicious = np.zeros(len(evidence.tokens), bool)
        suspicious[evidence.tokens == TARGET[0]] = suspicious[honest[::7]] = True
        groups = find_groups(evidence, suspicious, 0.01)
        return bool(groups.convicted), groups.smallest

    _, smallest = judged(5)
    assert smallest is not None
    assert 5 < smallest < 30
    assert [judged(count)[0] for count in (smallest - 1, smallest)] == [False, True]


def test_a_phrase_ends_with_its_answer_and_an_answer_is_counted_once() -> None:
    evidence = rows_of([[5, 6, 5, 6], [5, 6, 5], [5, 6, 5, 6]])
    (group, other) = find_groups(evidence, np.ones(11, bool), 0.01).found
    assert (group.phrase, group.suspicious, group.answers) == ((5, 6, 5, 6), 2, 2)
    assert (other.phrase, other.suspicious, other.rows.tolist()) == ((5, 6, 5), 1, [1])


def test_nothing_suspicious_is_no_group() -> None:
    assert find_groups(rows_of([COMMON]), np.zeros(2, bool), 0.01).found == []
