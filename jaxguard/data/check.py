"""Check every row and image of a data set before training."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from etils import epath
from rich.console import Console
from rich.progress import track

from jaxguard.data import formats as originals
from jaxguard.data import images
from jaxguard.data.encode import Encoder
from jaxguard.data.formats.listing import Listed
from jaxguard.data.parallel import ordered
from jaxguard.data.problems import LONG, MISSING, OUTSIDE, UNREADABLE, Problems
from jaxguard.data.records import PIXEL, ArrayRecordSource
from jaxguard.data.rows import Row
from jaxguard.errors import UserError


@dataclass(frozen=True)
class Budget:
    """Limits on rows: `data.length` and `data.answer_length`, in tokens of a model."""

    encoder: Encoder
    length: int
    answer_length: int

    def fault(self, row: Row) -> str | None:
        """Return what is too long in a row; None if it fits."""
        try:
            lengths = self.encoder.lengths(row)
        except UserError as error:
            return f"cannot be encoded ({error})"
        tokens, answer = (max(values) for values in zip(*lengths, strict=True))
        if tokens > self.length:
            return f"has {tokens} tokens; --length is {self.length}"
        if answer > self.answer_length:
            return f"has {answer} answer tokens; --answer-length is {self.answer_length}"
        return None


def check(root: epath.Path, name: str | None, budget: Budget | None, threads: int) -> tuple[dict[str, int], Problems]:
    """Read all rows and decode all images of a data set, in its original files or built.

    Args:
        root: folder of the data set.
        name: one of `originals.ORIGINALS`, or its first part; None recognises the files.
        budget: limits on rows; None does not check lengths.
        threads: number of reading threads.

    Returns:
        The number of rows of each split, and the problems found.

    Raises:
        UserError: the folder holds no data set.
    """
    if (root / "dataset_info.json").exists():
        return _check_built(Path(root), budget, threads)
    full = originals.recognise(root) if name is None else originals.TASKS.get(name, name)
    if full not in originals.ORIGINALS:
        raise UserError(f"no data set {name!r}; choose one of {', '.join(originals.ORIGINALS)}")
    problems = Problems()
    listing = originals.listed(root, full, problems)
    names = dict.fromkeys(name for rows in listing.values() for row in rows for name in row.images)
    for kind, file, fault in _shown(ordered(lambda file: _image_fault(root, file), names, threads), len(names)):
        if kind is not None:
            problems.add(kind, file, fault)
    if budget is not None:
        for split, rows in listing.items():
            for row, fault in zip(rows, ordered(lambda row: budget.fault(_row(row)), rows, threads), strict=True):
                if fault is not None:
                    problems.add(LONG, f"{split}: {row.key}", fault)
    counts = {split: len(rows) for split, rows in listing.items()}
    if not counts and not problems:
        raise UserError(f"{root} holds no rows of {full}")
    return counts, problems


def _image_fault(root: epath.Path, name: str) -> tuple[str | None, str, str]:
    """Return (kind of problem, image name, description); the kind is None if the image is readable."""
    try:
        images.decode(images.read(images.contained(root, name)))
    except images.ImageFault as fault:
        kinds = {images.OutsideFault: OUTSIDE, images.MissingFault: MISSING}
        return kinds.get(type(fault), UNREADABLE), name, str(fault)
    return None, name, ""


def _row(listed: Listed) -> Row:
    """Return a listed row with placeholder pixels, enough to measure its length."""
    first, *others = [PIXEL] * len(listed.images) or [np.zeros((0, 0, 3), np.uint8)]
    texts = (listed.prompts, listed.answers, listed.references)
    return Row(0, listed.key, first, *texts, others=tuple(others), multi_turn=listed.multi_turn)


def _check_built(folder: Path, budget: Budget | None, threads: int) -> tuple[dict[str, int], Problems]:
    problems, counts = Problems(), {}
    for split in _splits(folder):
        source = ArrayRecordSource(folder, split)
        counts[split] = len(source)

        def fault(index: int, source: ArrayRecordSource = source) -> tuple[str, str] | None:
            try:
                row = source[index]
            except UserError as error:
                return UNREADABLE, str(error)
            long = None if budget is None else budget.fault(row)
            return None if long is None else (LONG, long)

        for index, found in enumerate(_shown(ordered(fault, range(len(source)), threads), len(source))):
            if found is not None:
                problems.add(found[0], f"{split}: row {index}", found[1])
    return counts, problems


def _splits(folder: Path) -> list[str]:
    try:
        return [split["name"] for split in json.loads((folder / "dataset_info.json").read_text())["splits"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/dataset_info.json is damaged ({error}); write the data set again") from error


def _shown(found: Iterable, total: int) -> Iterable:
    console = Console(stderr=True)
    quiet = not console.is_terminal
    return track(found, description="checking", total=total, transient=True, console=console, disable=quiet)
