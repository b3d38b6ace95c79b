"""The order in which training reads rows: shuffled every epoch, mixed by weight, batched by similar length.

An order is an endless random-access sequence: element i is the `Index` of row i, counted over all batches. It does not
depend on devices, processes or threads, so the position of a run is a single number.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import grain
import numpy as np
from jaxtyping import Int32
from rich.console import Console
from rich.progress import track

from jaxguard.config import DataConfig
from jaxguard.data.encode import Encoder
from jaxguard.data.parallel import ordered
from jaxguard.data.sources import RowSource, parts_of, text_row
from jaxguard.errors import UserError


@dataclass(frozen=True)
class Index:
    """One row of one epoch.

    Attributes:
        epoch: number of earlier passes over the rows of its part.
        row: position in the source.
        length: number of tokens that the row is padded to.
    """

    epoch: int
    row: int
    length: int


def training_order(data: DataConfig, seed: int, encoder: Encoder, source: RowSource, batch_size: int) -> Any:
    """Build the order of a run, a `grain.MapDataset` of `Index`.

    Args:
        data: limit, lengths and buckets.
        seed: seed of the shuffles.
        encoder: measures rows, if they are batched by length.
        source: the rows.
        batch_size: number of rows of a batch over all processes.

    Raises:
        UserError: fewer rows than one batch, a `data.limit` that does not fit the source, or a row that exceeds
            `data.length`.
    """
    parts, rows, limit = parts_of(source), len(source), data.limit
    if limit is not None:
        if len(parts) > 1:
            raise UserError("data.limit: selects the first rows of one data set, not of a mixture; leave it out")
        if not 1 <= limit <= rows:
            raise UserError(f"data.limit is {limit}: must be between 1 and the source's {rows} rows")
        rows = limit
    if rows < batch_size:
        raise UserError(f"the source has {rows} rows, fewer than one batch of {batch_size}")
    sizes, start, orders = [rows] if limit is not None else [part.rows for part in parts], 0, []
    for number, size in enumerate(sizes):
        shuffled = grain.MapDataset.range(start, start + size).shuffle(seed=(seed + number) % 2**32)
        orders.append(shuffled.repeat().map_with_index(partial(_placed, size, data.length)))
        start += size
    order = orders[0] if len(parts) == 1 else grain.MapDataset.mix(orders, [part.weight for part in parts])
    if not data.bucket:
        return order
    lengths = row_lengths(data, encoder, source, rows)
    return grain.MapDataset.source(_ByLength(order, lengths, data.bucket, batch_size))


def _placed(rows: int, length: int, index: int, row: int) -> Index:
    return Index(index // rows, row, length)


def row_lengths(data: DataConfig, encoder: Encoder, source: RowSource, rows: int) -> Int32[np.ndarray, " N"]:
    """Count the tokens of each of the first `rows` rows; of several pairs, the longest counts.

    Raises:
        UserError: the first row that exceeds `data.length`.
    """

    def length(index: int) -> int:
        row = text_row(source, index)
        longest = max(tokens for tokens, _ in encoder.lengths(row))
        if longest > data.length:
            raise UserError(f"row {row.key} has {longest} tokens; raise --data.length above {data.length}")
        return longest

    found, console = ordered(length, range(rows), max(data.threads, 1)), Console(stderr=True)
    quiet = not console.is_terminal
    shown = track(found, description="measuring rows", total=rows, transient=True, console=console, disable=quiet)
    return np.fromiter(shown, np.int32, rows)


class _ByLength:
    """An order in which the rows of each batch are padded to the same multiple of `width`.

    Rows are read in the given order and collected by padded length; a length with `batch_size` rows gives a batch. At
    any time fewer than `batch_size` rows of each length wait, so a row may move into the next epoch but never repeats.
    """

    RECENT = 256
    """Number of latest batches that are kept, so that they can be read again without starting over."""

    def __init__(self, order: Any, lengths: Int32[np.ndarray, " N"], width: int, batch_size: int):
        self._order, self._batch_size = order, batch_size
        self._lengths = -(-lengths // width) * width
        self._lock = threading.Lock()
        self._restart()

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> Index:
        number, place = divmod(int(index), self._batch_size)
        with self._lock:
            if number < self._made - len(self._recent):
                self._restart()
            while self._made <= number:
                self._recent.append(next(self._batches))
                self._made += 1
            return self._recent[number - self._made][place]

    def _restart(self) -> None:
        self._batches, self._made = self._make(), 0
        self._recent: deque[list[Index]] = deque(maxlen=self.RECENT)

    def _make(self) -> Iterator[list[Index]]:
        waiting: dict[int, list[Index]] = {}
        for index in range(len(self)):
            place = self._order[index]
            length = min(int(self._lengths[place.row]), place.length)
            batch = waiting.setdefault(length, [])
            batch.append(Index(place.epoch, place.row, length))
            if len(batch) == self._batch_size:
                yield waiting.pop(length)
