"""Resumable writing of data set folders that TFDS reads, shard by shard: splits may have any size.

A folder gets its final name when it is complete. Until then, finished shards are in a sibling folder named .partial,
and a build of the same rows resumes after them.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from rich.console import Console
from rich.progress import Progress, TaskID
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from jaxguard.errors import UserError
from jaxguard.files import write_text

VERSION = "1.0.0"
ROWS_PER_SHARD = 4096
FINGERPRINT = "fingerprint.txt"


@dataclass(frozen=True)
class Split:
    """A split to write: its number of rows, and a function from a start row to an iterator of the rows from there."""

    count: int
    rows: Callable[[int], Iterator[dict]]


def embedded_schema() -> tfds.features.FeaturesDict:
    """Return the schema of rows of embedded sources, which hold one PNG."""
    return tfds.features.FeaturesDict(
        {"id": np.int64, "key": tfds.features.Text()}
        | {"image": tfds.features.Image(shape=(None, None, 3), encoding_format="png")}
        | {name: tfds.features.Sequence(tfds.features.Text()) for name in ("prompts", "answers", "references")}
    )


def schema() -> tfds.features.FeaturesDict:
    """Return the schema of rows of all other sources, which hold the bytes of any number of image files."""
    texts = ("images", "prompts", "answers", "references")
    return tfds.features.FeaturesDict(
        {"id": np.int64, "key": tfds.features.Text(), "chained": np.bool_, "system": tfds.features.Text()}
        | {name: tfds.features.Sequence(tfds.features.Text()) for name in texts}
    )


def known_schemas() -> list[tfds.features.FeaturesDict]:
    """Return the schemas of all folders that can be read: those of today, and `schema` from before it had `system`."""
    before = {name: feature for name, feature in schema().items() if name != "system"}
    return [embedded_schema(), schema(), tfds.features.FeaturesDict(before)]


def write(
    folder: Path,
    name: str,
    features: tfds.features.FeaturesDict,
    splits: dict[str, Split],
    *,
    extra: dict[str, str],
    fingerprint: str | None = None,
) -> None:
    """Write a data set folder.

    Args:
        folder: must not exist.
        name: name of the data set in its file names.
        features: one of the two schemas.
        splits: splits by name, none of them empty.
        extra: contents of text files to add to the folder, by name.
        fingerprint: identifies the rows, so that an interrupted write of the same rows resumes; it is kept in the
            folder. None starts anew and keeps nothing.

    Raises:
        UserError: `folder` cannot be written.
    """
    partial = folder.with_name(folder.name + ".partial")
    try:
        _open_partial(partial, fingerprint)
        serialize = ExampleSerializer(features.get_serialized_info()).serialize_example
        written = []
        console = Console(stderr=True)
        with Progress(transient=True, console=console, disable=not console.is_terminal) as progress:
            for split, rows in splits.items():
                task = progress.add_task(f"building {name} {split}", total=rows.count)

                def serialized(record: dict, task: TaskID = task) -> bytes:
                    progress.advance(task)
                    return serialize(features.encode_example(record))

                records = _Records(rows, serialized)
                for shard in _shards(partial, name, split, rows.count):
                    shard.write(records(shard.start))
                    progress.update(task, completed=shard.stop)
                written.append(_split_info(partial, name, split, rows.count))
        tfds.folder_dataset.write_metadata(
            data_dir=partial,
            features=features,
            split_infos=written,
            version=VERSION,
            check_data=False,
            description=name,
            disable_shuffling=True,
        )
        for file, text in extra.items():
            write_text(partial / file, text)
        if fingerprint is None:
            (partial / FINGERPRINT).unlink()
        os.replace(partial, folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}); choose another --root") from error


class _Records:
    """Serialized records of a split from a given row on; consecutive calls continue the same iterator."""

    def __init__(self, split: Split, serialize: Callable[[dict], bytes]):
        self._split, self._serialize = split, serialize
        self._rows: Iterator[dict] = iter(())
        self._next = -1

    def __call__(self, start: int) -> Iterator[bytes]:
        if start != self._next:
            self._rows, self._next = self._split.rows(start), start
        for record in self._rows:
            self._next += 1
            yield self._serialize(record)


@dataclass(frozen=True)
class _Shard:
    path: Path
    start: int
    stop: int

    def write(self, records: Iterable[bytes]) -> None:
        """Write the shard unless it exists already."""
        if self.path.exists():
            return
        unfinished = self.path.with_name(self.path.name + ".unfinished")
        writer = ArrayRecordWriter(str(unfinished), "group_size:1,uncompressed")  # images are compressed already
        try:
            count = sum(1 for _ in map(writer.write, itertools.islice(records, self.stop - self.start)))
        finally:
            writer.close()
        assert count == self.stop - self.start
        os.replace(unfinished, self.path)


def _shards(folder: Path, name: str, split: str, count: int) -> list[_Shard]:
    number = -(-count // ROWS_PER_SHARD)
    return [
        _Shard(
            folder / f"{name}-{split}.array_record-{index:05d}-of-{number:05d}",
            index * ROWS_PER_SHARD,
            min((index + 1) * ROWS_PER_SHARD, count),
        )
        for index in range(number)
    ]


def _split_info(folder: Path, name: str, split: str, count: int) -> Any:
    shards = _shards(folder, name, split, count)
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=name, split=split, filetype_suffix="array_record"
    )
    return tfds.core.SplitInfo(
        name=split,
        shard_lengths=[shard.stop - shard.start for shard in shards],
        num_bytes=sum(shard.path.stat().st_size for shard in shards),
        filename_template=template,
    )


def _open_partial(partial: Path, fingerprint: str | None) -> None:
    """Keep the shards of an interrupted write of the same rows; remove those of any other."""
    path = partial / FINGERPRINT
    if fingerprint is None or not path.is_file() or path.read_text(encoding="utf-8") != fingerprint:
        shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, exist_ok=True)
    write_text(path, fingerprint or "")
