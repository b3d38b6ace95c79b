"""Which answer tokens are learnt, looked up by row and pair."""

import numpy as np
import pytest

from jaxguard.data.counted import Counted
from jaxguard.data.encode import Encoded

COUNTED = Counted(
    rows=np.array([7, 7, 7, 2, 2, 7]), pairs=np.array([1, 1, 1, 0, 0, 0]), counted=np.array([1, 0, 1, 0, 1, 0], bool)
)


def encoded(segments: list[int], answer: list[int], drawn: tuple[int, ...]) -> Encoded:
    zeros = np.zeros(len(segments), np.int32)
    return Encoded(zeros, zeros, np.array(segments, np.int32), np.array(answer, bool), drawn)


def test_tokens_that_do_not_count_leave_the_answer_mask() -> None:
    row = encoded([1] * 6 + [0], [0, 0, 1, 1, 0, 1, 0], (1,))
    found = COUNTED.apply(7, row)
    assert found.answer_mask.tolist() == [False, False, True, False, False, True, False]
    assert row.answer_mask.sum() == 3, "the row itself is untouched"


def test_packed_pairs_are_told_apart_by_their_segments() -> None:
    row = encoded([1, 2, 2, 3, 3, 3, 0], [0, 0, 1, 1, 1, 1, 0], (0, 1, 4))
    assert COUNTED.apply(7, row).answer_mask.tolist() == [False, False, False, True, False, True, False]


@pytest.mark.parametrize(("row", "drawn", "tokens"), [(7, 2, 1), (3, 0, 2), (9, 0, 1), (7, 1, 2), (2, 0, 3)])
def test_what_was_not_measured_is_an_error(row: int, drawn: int, tokens: int) -> None:
    with pytest.raises(KeyError, match=f"pair {drawn} of row {row}, of {tokens} answer tokens, was not measured"):
        COUNTED.apply(row, encoded([1] * 4, [1] * tokens + [0] * (4 - tokens), (drawn,)))


def test_the_tokens_of_an_answer_lie_together() -> None:
    with pytest.raises(ValueError, match="do not lie together"):
        Counted(np.array([1, 2, 1]), np.zeros(3, int), np.ones(3, bool))
