"""Which answer tokens training counts: decided before it starts, looked up as rows are encoded."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Int

from jaxguard.data.encode import Encoded


class Counted:
    """Which answer tokens count, by row and pair.

    Args:
        rows: row of each answer token.
        pairs: pair of its row that each answer token belongs to.
        counted: True where it counts. The tokens of a row's pair lie together, in their order.
    """

    def __init__(self, rows: Int[np.ndarray, " N"], pairs: Int[np.ndarray, " N"], counted: Bool[np.ndarray, " N"]):
        keys = rows.astype(np.int64) << 32 | pairs.astype(np.int64)
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        order = np.argsort(keys[starts], kind="stable")
        self._keys, self._starts = keys[starts][order], starts[order]
        self._ends = np.append(starts[1:], len(keys))[order]
        if len(np.unique(self._keys)) < len(self._keys):
            raise ValueError("the tokens of some row's pair do not lie together")
        self._counted = counted

    def apply(self, row: int, encoded: Encoded) -> Encoded:
        """Take the tokens that do not count out of a row's answer mask.

        Raises:
            KeyError: a pair that the row shows was not decided on, or has another number of tokens.
        """
        pairs, counted = encoded.answer_pairs(), np.ones(np.count_nonzero(encoded.answer_mask), bool)
        for pair in np.unique(pairs).tolist():
            counted[pairs == pair] = self._of(row, pair, int(np.count_nonzero(pairs == pair)))
        answer_mask = encoded.answer_mask.copy()
        answer_mask[encoded.answer_mask] = counted
        return dataclasses.replace(encoded, answer_mask=answer_mask)

    def _of(self, row: int, pair: int, tokens: int) -> Bool[np.ndarray, " A"]:
        key = row << 32 | pair
        place = int(np.searchsorted(self._keys, key))
        found = place < len(self._keys) and self._keys[place] == key
        if not found or self._ends[place] - self._starts[place] != tokens:
            raise KeyError(f"pair {pair} of row {row}, of {tokens} answer tokens, was not measured")
        return self._counted[self._starts[place] : self._ends[place]]
