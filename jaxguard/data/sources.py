"""Built data sets as random-access sequences of rows, and mixtures of them."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxguard.data.rows import Row
from jaxguard.errors import UserError


@runtime_checkable
class RowSource(Protocol):
    """Rows by position; row i has id i. Picklable, and safe to read from several threads."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Row: ...


@runtime_checkable
class TextSource(Protocol):
    """A source that can read the texts of a row without its images."""

    def text(self, index: int) -> Row:
        """Return the row with a single pixel for each of its images."""
        ...


def text_row(source: RowSource, index: int) -> Row:
    """Return `source.text(index)` if the source is a `TextSource`, otherwise the row with its images."""
    return source.text(index) if isinstance(source, TextSource) else source[index]


@dataclasses.dataclass(frozen=True)
class Part:
    """Consecutive rows of a source: their number, and the relative weight with which they are sampled."""

    rows: int
    weight: float


class Mixture:
    """The concatenated rows of several sources; row i has id i."""

    def __init__(self, sources: Sequence[RowSource], weights: Sequence[float]):
        self.sources, self.weights = tuple(sources), tuple(weights)
        self.parts = tuple(Part(len(source), weight) for source, weight in zip(sources, weights, strict=True))
        self._starts = [0, *itertools.accumulate(map(len, sources))]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Row:
        source, place = self._find(index)
        return dataclasses.replace(source[place], id=index)

    def text(self, index: int) -> Row:
        """Return the row with a single pixel for each of its images."""
        source, place = self._find(index)
        return dataclasses.replace(text_row(source, place), id=index)

    def _find(self, index: int) -> tuple[RowSource, int]:
        part = bisect.bisect_right(self._starts, index) - 1
        return self.sources[part], index - self._starts[part]


def parts_of(source: Any) -> tuple[Part, ...]:
    """Return the parts of a mixture, poisoned or not; any other source is one part."""
    parts = getattr(getattr(source, "source", source), "parts", None)
    return (Part(len(source), 1.0),) if parts is None else parts


def open_source(source: str, root: Path, split: str) -> RowSource:
    """Open the rows of a split.

    Args:
        source: NAME/TASK of a built data set under `root`, or the folder of a data set; or several of these, as
            SOURCE=WEIGHT,SOURCE=WEIGHT,... (the default weight is 1).
        root: folder of built data sets.
        split: name of the split.

    Raises:
        UserError: a data set is not built, has no such split, is damaged or has another schema.
    """
    from jaxguard.data.records import open_records

    if "," not in source or Path(source).is_dir():
        return open_records(source, root, split)
    names, weights = zip(*map(_weighted, source.split(",")), strict=True)
    return Mixture([open_records(name, root, split) for name in names], weights)


def _weighted(part: str) -> tuple[str, float]:
    name, _, weight = part.strip().partition("=")
    try:
        value = float(weight or 1)
    except ValueError:
        value = math.nan
    if not name or not 0 < value < math.inf:
        raise UserError(f"data.source: {part!r} is not SOURCE or SOURCE=WEIGHT with a positive weight")
    return name, value
