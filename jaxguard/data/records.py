"""Reading of the data set folders that `jaxguard data build` and `jaxguard poison` write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from jaxguard.data.images import ImageFault, decode
from jaxguard.data.rows import Row
from jaxguard.errors import UserError

NOTHING, PIXEL = np.zeros((0, 0, 3), np.uint8), np.zeros((1, 1, 3), np.uint8)


class ArrayRecordSource:
    """One split of a data set folder that `jaxguard data build` or `jaxguard poison` wrote."""

    def __init__(self, folder: Path, split: str):
        self.folder, self.split = folder, split
        self._data: Any = _open(folder, split)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Row:
        record = self._record(index)
        try:
            return self._row(index, record, [decode(data) for data in _images(record)])
        except ImageFault as fault:
            raise UserError(f"{self.folder}: an image of row {index} of {self.split} {fault}") from fault

    def text(self, index: int) -> Row:
        """Return the row with a single pixel for each of its images."""
        record = self._record(index)
        return self._row(index, record, [PIXEL] * len(_images(record)))

    def _record(self, index: int) -> Mapping[str, Any]:
        try:
            return _parse(self._data[index])
        except (DecodeError, RuntimeError) as error:  # RuntimeError: a wrong checksum
            raise UserError(f"{self.folder}: row {index} of {self.split} is damaged ({error})") from error

    def _row(self, index: int, record: Mapping[str, Any], images: list[np.ndarray]) -> Row:
        try:
            row = _row(record, images)
        except UnicodeDecodeError as error:
            raise UserError(f"{self.folder}: row {index} of {self.split} holds no text ({error})") from error
        except ValueError as error:
            where = f"{self.folder}: row {index} of {self.split}"
            raise UserError(f"{where} lacks an id (0 to 2**31 - 1) or a key") from error
        if not row.prompts or len(row.prompts) != len(row.answers):
            raise UserError(f"{self.folder}: row {index} of {self.split} has no answer to each of its prompts")
        return row

    def __reduce__(self) -> tuple:
        return ArrayRecordSource, (self.folder, self.split)


def open_records(source: str, root: Path, split: str) -> ArrayRecordSource:
    """Open a split of one data set; `sources.open_source` accepts several."""
    from jaxguard.data.builders import SOURCES, folder_of

    folder = folder_of(source, root)
    if source not in SOURCES and not (folder / "dataset_info.json").is_file():
        folder = Path(source)
    if not (folder / "dataset_info.json").is_file():
        if source in SOURCES:
            raise UserError(f"data set {source!r} is not built in {root}: run `jaxguard data build {source}`")
        raise UserError(
            f"data.source {source!r} is neither one of {', '.join(SOURCES)}, nor built in {root}, nor a data set folder"
        )
    return ArrayRecordSource(folder, split)


def _parse(record: bytes) -> Mapping[str, Any]:
    """Parse the features of a stored row; missing ones are empty.

    TFDS's own parser takes ten times as long: it visits every feature to check for shapes that no row here has.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString(record).features.feature


def _images(record: Mapping[str, Any]) -> list[bytes]:
    """Return the encoded images of a row: one in an embedded source, any number in others."""
    return list(record["image" if "image" in record else "images"].bytes_list.value)


def _row(record: Mapping[str, Any], images: list[np.ndarray]) -> Row:
    """Build the row. Raises ValueError if there is not exactly one id of 31 bits and one key."""
    prompts, answers, references = (
        tuple(text.decode() for text in record[name].bytes_list.value) for name in ("prompts", "answers", "references")
    )
    (number,), (key,) = record["id"].int64_list.value, record["key"].bytes_list.value
    if not 0 <= number < 2**31:
        raise ValueError(number)
    first, *others = images or [NOTHING]
    multi_turn = list(record["chained"].int64_list.value) == [1]
    system = b"".join(record["system"].bytes_list.value).decode()
    return Row(number, key.decode(), first, prompts, answers, references, tuple(others), multi_turn, system)


def _open(folder: Path, split: str) -> Any:
    """Open the stored records of a split, by position."""
    import tensorflow_datasets as tfds

    from jaxguard.data.shards import known_schemas

    # Checked before TFDS reads the folder, because it imports any module that a foreign features.json names.
    try:
        stored, _ = (json.loads((folder / file).read_text()) for file in ("features.json", "dataset_info.json"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is damaged ({error}); remove it and write it again") from error
    known = [features.to_json() for features in known_schemas()]
    if stored not in [{"pythonClassName": one["type"], "featuresDict": one["content"]} for one in known]:
        raise UserError(f"{folder} holds no rows in jaxguard's schema; name one from `jaxguard data build` or `poison`")
    builder = tfds.builder_from_directory(folder)
    if split not in builder.info.splits:
        raise UserError(f"{folder} has no split {split!r}; it has {', '.join(builder.info.splits)}")
    return builder.as_data_source(split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
