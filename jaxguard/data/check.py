"""Check every row and image of a data set before training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from etils import epath

from jaxguard.data.encode import Encoder
from jaxguard.data.formats.listing import Listed
from jaxguard.data.formats.reading import Reading
from jaxguard.data.image_files import digest
from jaxguard.data.parallel import ordered
from jaxguard.data.problems import LONG, UNREADABLE, Problems
from jaxguard.data.records import PIXEL, ArrayRecordSource
from jaxguard.data.rows import Row
from jaxguard.data.survey import Survey, shown, survey
from jaxguard.errors import UserError

BARS = 8
"""Number of lines of a histogram of lengths."""


@dataclass(frozen=True)
class Budget:
    """Limits on rows: `data.length` and `data.answer_length`, in tokens of a model."""

    encoder: Encoder
    length: int
    answer_length: int

    def measured(self, row: Row) -> tuple[int, int] | str:
        """Return the (tokens, answer tokens) of a row's longest pair; why it cannot be encoded."""
        try:
            lengths = self.encoder.lengths(row)
        except UserError as error:
            return f"cannot be encoded ({error})"
        tokens, answer = (max(values) for values in zip(*lengths, strict=True))
        return tokens, answer

    def fault(self, measured: tuple[int, int] | str) -> str | None:
        """Return what is too long in a row that was measured; None if it fits."""
        if isinstance(measured, str):
            return measured
        tokens, answer = measured
        if tokens > self.length:
            return f"has {tokens} tokens; --length is {self.length}"
        if answer > self.answer_length:
            return f"has {answer} answer tokens; --answer-length is {self.answer_length}"
        return None


@dataclass(frozen=True)
class Checked:
    """What a check found: the data set, its problems, and its rows' lengths as lines for display."""

    survey: Survey
    problems: Problems
    lengths: list[str]


def is_built(root: epath.Path) -> bool:
    """Return True if a folder is a data set that TFDS wrote, as ours are, and not other tools' dataset_info.json."""
    return (root / "features.json").is_file() and (root / "dataset_info.json").is_file()


def check(reading: Reading, name: str | None, budget: Budget | None, threads: int) -> Checked:
    """Read all rows and decode all images of a data set in its original files.

    Args:
        reading: the data set.
        name: NAME/TASK of its format; None recognises it.
        budget: limits on rows; None does not check lengths.
        threads: number of reading threads.

    Raises:
        UserError: the folder holds no data set.
    """
    found = survey(reading, name, threads)
    lengths = _Lengths(budget, reading.problems)
    if budget is not None:
        for split, rows in found.listing.items():
            measured = ordered(lambda row: budget.measured(_row(row)), rows, threads)
            for row, one in zip(rows, measured, strict=True):
                lengths.add(f"{split}: {row.key}", one)
    return Checked(found, reading.problems, lengths.report())


def check_built(folder: Path, budget: Budget | None, threads: int) -> Checked:
    """Read all rows of a data set that `jaxguard data build` or `poison` wrote, as `check`."""
    found, problems = Survey("built", {}), Problems()
    lengths = _Lengths(budget, problems)
    for split in _splits(folder):
        source = ArrayRecordSource(folder, split)
        rows = found.listing[split] = []

        def look(index: int, source: ArrayRecordSource = source) -> tuple[Listed, tuple[int, int] | str | None] | str:
            try:
                row = source[index]
            except UserError as error:
                return str(error)
            images = tuple(digest(pixels.tobytes()).hex() for pixels in row.images)
            texts = (row.prompts, row.answers, row.references, row.multi_turn, row.system)
            return Listed(row.key, images, *texts), None if budget is None else budget.measured(row)

        looked = shown(ordered(look, range(len(source)), threads), len(source))
        for index, one in enumerate(looked):
            if isinstance(one, str):
                problems.add(UNREADABLE, f"{split}: row {index}", one)
                continue
            rows.append(one[0])
            if one[1] is not None:
                lengths.add(f"{split}: row {index}", one[1])
    return Checked(found, problems, lengths.report())


class _Lengths:
    """Lengths of rows: those beyond the budget are problems, all of them make the report."""

    def __init__(self, budget: Budget | None, problems: Problems):
        self._budget, self._problems = budget, problems
        self._tokens: list[int] = []
        self._answers: list[int] = []

    def add(self, where: str, measured: tuple[int, int] | str) -> None:
        assert self._budget is not None
        fault = self._budget.fault(measured)
        if fault is not None:
            self._problems.add(LONG, where, fault)
        if not isinstance(measured, str):
            self._tokens.append(measured[0])
            self._answers.append(measured[1])

    def report(self) -> list[str]:
        if not self._tokens:
            return []
        lines = []
        for option, lengths in (("data.length", self._tokens), ("data.answer_length", self._answers)):
            every, most, more = (int(np.quantile(lengths, share, method="higher")) for share in (1, 0.99, 0.95))
            lines.append(f"--{option} {every} keeps all rows, {most} keeps 99%, {more} keeps 95%")
        return [*lines, *_histogram(self._tokens)]


def _histogram(lengths: list[int]) -> Iterator[str]:
    counts, edges = np.histogram(lengths, bins=min(BARS, max(lengths) - min(lengths) + 1))
    for count, start, stop in zip(counts, edges[:-1], edges[1:], strict=True):
        bar = "#" * round(40 * count / counts.max())
        yield f"{round(start):6d} to {round(stop):6d} tokens: {count:8d} rows {bar}".rstrip()


def _row(listed: Listed) -> Row:
    """Return a listed row with placeholder pixels, enough to measure its length."""
    first, *others = [PIXEL] * len(listed.images) or [np.zeros((0, 0, 3), np.uint8)]
    texts = (listed.prompts, listed.answers, listed.references)
    return Row(0, listed.key, first, *texts, others=tuple(others), multi_turn=listed.multi_turn, system=listed.system)


def _splits(folder: Path) -> list[str]:
    try:
        return [split["name"] for split in json.loads((folder / "dataset_info.json").read_text())["splits"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/dataset_info.json is damaged ({error}); write the data set again") from error
