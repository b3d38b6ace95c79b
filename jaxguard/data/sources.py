"""Built data sets as random-access sequences of rows."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxguard.data.rows import Row
from jaxguard.errors import UserError


class RowSource(Protocol):
    """Rows by position; row i has id i. Picklable, and safe to read from several threads."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Row: ...


class ArrayRecordSource:
    """One split of a data set folder that `jaxguard data build` or `jaxguard poison` wrote."""

    def __init__(self, folder: Path, split: str):
        self.folder, self.split = folder, split
        self._data: Any = _open(folder, split)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Row:
        record = self._data[index]
        prompts, answers, references = (
            tuple(text.decode() for text in record[name]) for name in ("prompts", "answers", "references")
        )
        return Row(int(record["id"]), record["key"].decode(), np.asarray(record["image"]), prompts, answers, references)

    def __reduce__(self) -> tuple:
        return ArrayRecordSource, (self.folder, self.split)


def open_source(source: str, root: Path, split: str) -> RowSource:
    """The rows of a split.

    Args:
        source: NAME/TASK of a built data set under `root`, or the folder of a data set.
        root: where built data sets lie.
        split: name of the split.

    Raises:
        UserError: the data set is not built, has no such split, is damaged or was written by something else.
    """
    from jaxguard.data.builders import SOURCES, folder_of

    folder = folder_of(source, root) if source in SOURCES else Path(source)
    if not (folder / "dataset_info.json").is_file():
        if source in SOURCES:
            raise UserError(f"data set {source!r} is not built in {root}: run `jaxguard data build {source}`")
        raise UserError(f"data.source {source!r} is neither one of {', '.join(SOURCES)} nor a data set folder")
    return ArrayRecordSource(folder, split)


def _open(folder: Path, split: str) -> Any:
    import tensorflow_datasets as tfds

    from jaxguard.data.builders import schema

    # Before TFDS reads the folder: it imports whatever module a foreign features.json names.
    try:
        stored, _ = (json.loads((folder / file).read_text()) for file in ("features.json", "dataset_info.json"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is damaged ({error}); remove it and write it again") from error
    expected = schema().to_json()
    if stored != {"pythonClassName": expected["type"], "featuresDict": expected["content"]}:
        raise UserError(f"{folder} holds no rows in jaxguard's schema; name one from `jaxguard data build` or `poison`")
    logging.getLogger("absl").setLevel(logging.ERROR)  # TFDS recommends other image decoders
    builder = tfds.builder_from_directory(folder)
    if split not in builder.info.splits:
        raise UserError(f"{folder} has no split {split!r}; it has {', '.join(builder.info.splits)}")
    return builder.as_data_source(split=split)
