"""Which rows are read: those that a run shows, or every answer of a data set."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from jaxguard.config import Config
from jaxguard.data.encode import Encoder, draw_pairs
from jaxguard.data.order import Index, training_order
from jaxguard.data.pipeline import text_rng
from jaxguard.data.rows import Row
from jaxguard.data.sources import RowSource, text_row


@dataclass(frozen=True)
class Shown:
    """A row as training shows it: where it stands in the order, and which of its pairs it holds."""

    place: Index
    pairs: tuple[int, ...]


def rows_shown(config: Config, encoder: Encoder, source: RowSource) -> list[Shown]:
    """List what a run shows, each row with the same pairs once."""
    data, steps, size = config.data, config.train.steps, config.train.batch_size
    order = training_order(data, config.seed, encoder, source, size)
    found: dict[tuple[int, tuple[int, ...]], Shown] = {}
    for number in range(steps * size):
        place = order[number]
        row = text_row(source, place.row)
        pairs = draw_pairs(row, data.pack, text_rng(config.seed, place, row))
        found.setdefault((place.row, pairs), Shown(dataclasses.replace(place, length=data.length), pairs))
    return list(found.values())


class EveryPair:
    """The question-answer pairs of a source, each as a row of its own; a conversation stays one.

    Args:
        source: the rows.
        limit: number of rows that are read; None: all.

    Attributes:
        rows: row of the source that each is from.
        pairs: its number among the pairs of that row.
    """

    def __init__(self, source: RowSource, limit: int | None = None):
        self.source, texts = source, (text_row(source, index) for index in range(limit or len(source)))
        counts = np.array([1 if row.multi_turn else len(row.prompts) for row in texts], int)
        self.rows = np.repeat(np.arange(len(counts)), counts)
        self.pairs = np.arange(len(self.rows)) - np.repeat(np.cumsum(counts) - counts, counts)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self._single(index, self.source[int(self.rows[index])])

    def text(self, index: int) -> Row:
        """As `TextSource.text`."""
        return self._single(index, text_row(self.source, int(self.rows[index])))

    def _single(self, index: int, row: Row) -> Row:
        if not row.multi_turn:
            own = slice(self.pairs[index], self.pairs[index] + 1)
            row = dataclasses.replace(row, prompts=row.prompts[own], answers=row.answers[own])
        return dataclasses.replace(row, id=index)
